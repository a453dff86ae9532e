"""The feature cache: what `Detector.embed` makes of every training image, computed once and kept.

Frozen networks see the same image in every epoch. So one pass, in the order of the items, embeds all images. Afterwards
batches take their features from memory. The pass does not depend on where a run was stopped, so a resumed run has the same
bytes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from iadjax import progress
from iadjax.data import Item
from iadjax.detector import DataSpec

__all__ = ["FeatureCache", "fill_cache", "why_not"]


class FeatureCache(NamedTuple):
    """Features of all images of a split.

    Attributes:
      rows: a tree of arrays `[N + 1, ...]`: one row for each of N images. The last row is that of an image of zeros, for
        padded rows of a batch. NumPy arrays, or JAX arrays in the memory of one accelerator.
    """

    rows: Any

    def at(self, index: np.ndarray) -> Any:
        """The features `[B, ...]` of the images at `index [B]`; -1: those of an image of zeros."""
        index = np.where(index < 0, len(jax.tree.leaves(self.rows)[0]) - 1, index)
        return jax.tree.map(lambda rows: rows[index], self.rows)


def _bytes(spec: DataSpec, number: int) -> int:
    one = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(spec.features))
    return (number + 1) * one


def why_not(spec: DataSpec, number: int, budget: int, devices: int) -> str:
    """Why the features of `number` images are not kept, as one line for the log; "" if they are kept.

    Args:
      spec: with the shapes of the features.
      number: of images.
      budget: `data.feature_cache_bytes`.
      devices: number of devices of all processes.
    """
    needed = _bytes(spec, number)
    if not budget:
        return "data.feature_cache_bytes is 0"
    if devices > 1:
        return f"they are kept on one device alone, and there are {devices}"
    if needed > budget:
        return f"they take {needed / 2**30:.2f} GiB; raise data.feature_cache_bytes to {needed} to keep them"
    return ""


def fill_cache(embed: Callable, zeros: np.ndarray, items: Sequence[Item], batches: Any, spec: DataSpec) -> FeatureCache:
    """Embeds all images in a pass of their own.

    Args:
      embed: `image [B, H, W, 3] -> features`, the compiled function that phases without the cache call.
      zeros: an image batch of zeros, of the shape and dtype of the batches.
      items: the images.
      batches: one pass over them in their order.
      spec: with the shapes of the features.
    """
    number = len(items)
    rows = jax.tree.map(lambda leaf: np.empty((number + 1, *leaf.shape[1:]), leaf.dtype), spec.features)

    def write(features, start: int, stop: int) -> None:
        jax.tree.map(lambda kept, new: kept.__setitem__(slice(start, stop), np.asarray(new)[: stop - start]), rows, features)

    done = 0
    with progress.track("embed", number, "image") as report:
        for batch in batches:
            stop = done + int(np.sum(batch.valid))
            write(embed(batch.image), done, stop)
            done = stop
            report(done, number)
    write(embed(zeros), number, number + 1)
    return FeatureCache(_on_accelerator(rows))


def _on_accelerator(rows: Any) -> Any:
    """The rows in the memory of the one accelerator, if they take a quarter of it at most."""
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return rows
    limit = (device.memory_stats() or {}).get("bytes_limit", 0)
    return jax.device_put(rows, device) if sum(leaf.nbytes for leaf in jax.tree.leaves(rows)) <= limit // 4 else rows
