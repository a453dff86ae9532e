"""Weights of frozen networks: names and layouts of tensors, files and the Hub."""

from iadjax.backbones.weights.files import content_hash, convert, fetch, load_weights
from iadjax.backbones.weights.names import fill, torch_layout, torch_name

__all__ = ["content_hash", "convert", "fetch", "fill", "load_weights", "torch_layout", "torch_name"]
