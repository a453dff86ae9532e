"""Weights of frozen networks: names and layouts of tensors, files and the Hub."""

from iadjax.backbones.weights.files import content_hash, convert, fetch, load_weights
from iadjax.backbones.weights.names import Table, fill, fill_by_table, position, torch_layout, torch_name

__all__ = [
    "Table",
    "content_hash",
    "convert",
    "fetch",
    "fill",
    "fill_by_table",
    "load_weights",
    "position",
    "torch_layout",
    "torch_name",
]
