"""Data sets by name, protocols and the input pipeline."""

import functools
from collections.abc import Sequence

from iadjax.data import tiling
from iadjax.data.auxiliary import with_auxiliary
from iadjax.data.dataset import Dataset, Item, read
from iadjax.data.images import check_channels, check_value_range, read_image
from iadjax.data.loader import (
    batches,
    check_inputs,
    in_tiles,
    index_batches,
    num_batches,
    pad_batch,
    read_transformed,
    whole_size,
)
from iadjax.data.masks import MaskReader
from iadjax.data.opening import MAX_PIXELS
from iadjax.data.prepared.read import find_prepared, load_prepared
from iadjax.data.protocols import SEQUENCES, Split, split
from iadjax.data.remarks import remarks
from iadjax.data.sources import published as builders
from iadjax.data.sources.folder import folder
from iadjax.data.sources.synthetic import synthetic
from iadjax.data.transform import Transform
from iadjax.errors import UserError, did_you_mean

__all__ = [
    "NAMES",
    "SEQUENCES",
    "Dataset",
    "Item",
    "MaskReader",
    "Split",
    "Transform",
    "batches",
    "check_channels",
    "check_inputs",
    "check_value_range",
    "in_tiles",
    "index_batches",
    "load",
    "num_batches",
    "pad_batch",
    "read",
    "read_image",
    "read_transformed",
    "remarks",
    "split",
    "tiling",
    "whole_size",
    "with_auxiliary",
]

NAMES = tuple(sorted((*builders.MODULES, "folder", "synthetic")))


def load(
    name: str,
    *,
    root: str = "",
    category: str = "",
    seed: int = 0,
    value_range: float | str = "auto",
    channels: Sequence[int] | str = "auto",
    max_pixels: int = MAX_PIXELS,
    **options,
) -> Dataset:
    """The data set `name`.

    Args:
      name: one of `NAMES`.
      root: its folder, as published or as `scripts/prepare_data.py` wrote it (recognised by what lies in it); not used by
        "synthetic".
      category: one category, several with commas, or "all".
      seed: draws what the source leaves open (the split of plain directories).
      value_range, channels, max_pixels: how image files are read, see `read_image`; not used by "synthetic".
      **options: further keywords of the source.

    Raises:
      UserError: an unknown name or category, or something is missing in the folder (named).
    """
    reader = functools.partial(
        read_image,
        value_range=check_value_range(value_range),
        channels=check_channels(channels),
        max_pixels=max_pixels,
    )
    if name == "synthetic":
        return synthetic(category)
    if name == "folder":
        found = folder(root, category, seed=seed, **options)
    elif name in builders.MODULES:
        prepared = find_prepared(root, name) if root else None
        found = load_prepared(prepared, name, category) if prepared else builders.module(name).index(name, root, category)
    else:
        raise UserError(f"there is no data set {name!r}; {did_you_mean(name, NAMES)}")
    return found._replace(read=functools.partial(found.read, image=reader))
