"""The input pipeline: items to batches of one static shape, by Grain.

Decoding and resizing run in threads of the loader. The order is a function of (seed, epoch) alone, so a run that resumes
asks for the same epoch from a later batch and sees what the uninterrupted run would have seen.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence

import grain
import jax
import numpy as np

from iadjax.data.dataset import Dataset, Item, read
from iadjax.data.images import to_float
from iadjax.data.tiling import cut, tiled
from iadjax.data.transform import Transform
from iadjax.detector import Batch
from iadjax.errors import UserError

__all__ = ["batches", "in_tiles", "num_batches", "pad_batch", "read_transformed", "whole_size"]

# images that stay decoded while their tiles are cut
_DECODED = 4
# salt that keeps the augmentation's random numbers apart from the order's
_AUGMENT = 1


def read_transformed(dataset: Dataset, transform: Transform, item: Item) -> tuple[np.ndarray, np.ndarray]:
    """Image `[H, W, 3]` float32 and mask `[H, W]` uint8 of one item, at the network's input size."""
    image, mask = read(dataset, item)
    image, mask = transform.image(image), transform.mask(mask)
    return (image, mask) if item.tile is None else (cut(image, item.tile, transform.tile), cut(mask, item.tile, transform.tile))


def whole_size(dataset: Dataset, transform: Transform, items: Sequence[Item]) -> tuple[int, int]:
    """(height, width) of the images of a split after resize and crop, by its first one."""
    return transform.resample(read(dataset, items[0])[0]).shape[:2]


def in_tiles(dataset: Dataset, transform: Transform, items: Sequence[Item]) -> Sequence[Item]:
    """The items as the network sees them: each once, or once for each of its tiles."""
    if transform.tile is None or not items:
        return items
    return tiled(items, whole_size(dataset, transform, items), transform.tile, transform.overlap)


def num_batches(items: Sequence[Item], batch_size: int, anomaly_share: float = 0.0) -> int:
    """Batches of one pass, the padded last one included."""
    if anomaly_share:
        normal = sum(item.label == 0 for item in items)
        return -(-normal // (batch_size - _num_anomalies(batch_size, anomaly_share)))
    return -(-len(items) // batch_size)


def _num_anomalies(batch_size: int, share: float) -> int:
    """Rows of a batch that are labelled anomalies: at least one, and at least one row is left for a normal image."""
    return min(max(1, round(share * batch_size)), batch_size - 1)


def _order(items: Sequence[Item], batch_size: int, shuffle: tuple[int, ...] | None, anomaly_share: float) -> np.ndarray:
    """Positions in `items`, in the order of one pass."""
    if shuffle is None:
        return np.arange(len(items))
    rng = np.random.default_rng(shuffle)
    if not anomaly_share:
        return rng.permutation(len(items))
    labels = np.array([item.label for item in items])
    normal, anomalous = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
    count = _num_anomalies(batch_size, anomaly_share)
    normal = rng.permutation(normal)
    rows = batch_size - count
    parts = [
        np.concatenate([normal[start : start + rows], rng.choice(anomalous, count)]) for start in range(0, len(normal), rows)
    ]
    return np.concatenate(parts)


def batches(
    dataset: Dataset,
    items: Sequence[Item],
    transform: Transform,
    batch_size: int,
    *,
    shuffle: tuple[int, ...] | None = None,
    start: int = 0,
    workers: int = 2,
    process: tuple[int, int] = (0, 1),
    multiple: int = 1,
    raw: bool = False,
    augment: Callable | None = None,
    anomaly_share: float = 0.0,
) -> Iterator[Batch]:
    """One pass over `items`.

    Args:
      dataset: reads the items.
      items: the split.
      transform: resize and crop.
      batch_size: rows of a batch; the last one is padded with zeros and `valid=False`.
      shuffle: words that seed the order (seed, phase, epoch), or None for the order of `items`.
      start: batches to leave out at the beginning.
      workers: threads that decode; 0 decodes in the caller's thread.
      process: (index, count); each process reads its own share of every batch, a run of neighbouring rows.
      multiple: every batch is padded to a multiple of so many rows (devices); a multiple of the number of processes.
      raw: images of 8 bits stay uint8, for `images.unit_range` on the device; float32 in [0, 1] otherwise.
      augment, anomaly_share: of the phase, see `Phase`; they need `shuffle`.

    Raises:
      UserError: images of different sizes.
    """
    order = _order(items, batch_size, shuffle, anomaly_share)
    index, count = process
    multiple = math.lcm(multiple, count)
    own = -(-batch_size // multiple) * multiple // count
    first = [(batch * batch_size, index * own) for batch in range(start, -(-len(order) // batch_size))]
    # places in `order` of this process's rows; those past the batch or the end are padding
    places = [
        begin + row if row < batch_size and begin + row < len(order) else -1
        for begin, offset in first
        for row in range(offset, offset + own)
    ]
    shape = []

    def whole(item: Item):
        image, mask = read(dataset, item)
        return transform.resample(image), transform.mask(mask)

    if transform.tile is not None:
        # the tiles of an image follow each other: it is decoded once
        whole = functools.lru_cache(_DECODED)(whole)

    def load(place: int):
        if place < 0:
            return ()
        position = int(order[place])
        item = items[position]
        image, mask = whole(item._replace(tile=None))
        if not shape:
            shape.append(image.shape)
        if image.shape != shape[0]:
            raise UserError(
                f"images of different sizes in one split: {item.path} is {image.shape[1]}x{image.shape[0]} and another is "
                f"{shape[0][1]}x{shape[0][0]} after data.resize and data.crop; set both so that one size comes out"
            )
        label = item.label
        if item.tile is not None:
            image, mask = (cut(array, item.tile, transform.tile) for array in (image, mask))
            # a tile beside the defect is normal
            label = int(label and (mask.any() or not dataset.has_masks))
        extra = augment(np.random.default_rng((*shuffle, _AUGMENT, place)), to_float(image)) if augment else {}
        if dataset.points:
            xyz = transform.points(dataset.points(item))
            extra = {"xyz": xyz if item.tile is None else cut(xyz, item.tile, transform.tile), **extra}
        return image if raw else to_float(image), mask, label, dataset.categories.index(item.category), position, extra

    rows = grain.MapDataset.source(places).map(load).batch(own, batch_fn=list)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * max(1, workers) if workers else 0)
    for loaded in rows.to_iter_dataset(options):
        real = [row for row in loaded if row]
        # a share without a single image still has the shape of one
        yield pad_batch(real, own) if real else _blank(pad_batch([load(0)], own))


def _blank(batch: Batch) -> Batch:
    zeros = jax.tree.map(np.zeros_like, batch)
    return zeros._replace(index=np.full_like(batch.index, -1))


def pad_batch(rows, batch_size: int) -> Batch:
    """A batch of `batch_size` rows from `(image, mask, label, category, index, extra)` tuples, padded with zeros."""
    *columns, extras = zip(*rows, strict=True)
    if len({image.dtype for image in columns[0]}) > 1:
        columns[0] = [to_float(image) for image in columns[0]]
    images, masks, labels, categories, indices = (np.stack(column) for column in columns)
    missing = batch_size - len(rows)

    def pad(array, dtype, value=0):
        return np.pad(array.astype(dtype), [(0, missing)] + [(0, 0)] * (array.ndim - 1), constant_values=value)

    return Batch(
        image=pad(images, images.dtype),
        mask=pad(masks, np.uint8),
        label=pad(labels, np.int32),
        category=pad(categories, np.int32),
        index=pad(indices, np.int32, -1),
        valid=pad(np.ones(len(rows)), bool),
        extra={name: pad(np.stack([extra[name] for extra in extras]), extras[0][name].dtype) for name in extras[0]},
    )
