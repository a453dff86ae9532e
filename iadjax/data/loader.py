"""The input pipeline: items to batches of one static shape, by Grain.

Decoding and resizing run in threads of the loader. The order depends on seed, phase and epoch alone. So a resumed run sees the
batches that the uninterrupted run would have seen.
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

__all__ = ["batches", "check_inputs", "in_tiles", "index_batches", "num_batches", "pad_batch", "read_transformed", "whole_size"]

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
    """(height, width) of the images of a split after resize and crop, from its first image."""
    return transform.resample(read(dataset, items[0])[0]).shape[:2]


def in_tiles(dataset: Dataset, transform: Transform, items: Sequence[Item]) -> Sequence[Item]:
    """The items as the network sees them: each once, or once for each of its tiles."""
    if transform.tile is None or not items:
        return items
    return tiled(items, whole_size(dataset, transform, items), transform.tile, transform.overlap)


def num_batches(items: Sequence[Item], batch_size: int, anomaly_fraction: float = 0.0, group: str = "") -> int:
    """The number of batches of one pass, with the padded last one."""
    return len(_plan(items, batch_size, (0,), anomaly_fraction, group))


def _num_anomalies(batch_size: int, fraction: float) -> int:
    """The number of labelled anomalies in a batch: at least one, and at most all rows but one."""
    return min(max(1, round(fraction * batch_size)), batch_size - 1)


def _plan(
    items: Sequence[Item], batch_size: int, shuffle: tuple[int, ...] | None, anomaly_fraction: float = 0.0, group: str = ""
) -> list[np.ndarray]:
    """One pass: the positions in `items` that each batch holds, at most `batch_size` of them."""

    def cut_into(order: np.ndarray, rows: int) -> list[np.ndarray]:
        return [order[start : start + rows] for start in range(0, len(order), rows)]

    if shuffle is None:
        return cut_into(np.arange(len(items)), batch_size)
    rng = np.random.default_rng(shuffle)
    if anomaly_fraction:
        labels = np.array([item.label for item in items])
        normal, anomalous = np.flatnonzero(labels == 0), np.flatnonzero(labels == 1)
        count = _num_anomalies(batch_size, anomaly_fraction)
        parts = cut_into(rng.permutation(normal), batch_size - count)
        return [np.concatenate([part, rng.choice(anomalous, count)]) for part in parts]
    order = rng.permutation(len(items))
    if not group:
        return cut_into(order, batch_size)
    if group != "category":
        raise UserError(f"a phase groups its batches by 'category' or not at all (''), got {group!r}")
    categories = np.array([items[i].category for i in order])
    parts = [part for name in sorted(set(categories)) for part in cut_into(order[categories == name], batch_size)]
    return [parts[i] for i in rng.permutation(len(parts))]


def _own_rows(plan: list[np.ndarray], batch_size: int, start: int, process: tuple[int, int], multiple: int):
    """(rows of this process in a batch, [(position in the pass, position in the items)] of all of them, (-1, -1) if padded)."""
    index, count = process
    multiple = math.lcm(multiple, count)
    own = -(-batch_size // multiple) * multiple // count
    begins = np.cumsum([0, *map(len, plan)])
    rows = [
        (int(begins[number]) + row, int(plan[number][row])) if row < len(plan[number]) else (-1, -1)
        for number in range(start, len(plan))
        for row in range(index * own, (index + 1) * own)
    ]
    return own, rows


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
    inputs: Sequence[str] = (),
    prepare: Callable | None = None,
    augment: Callable | None = None,
    anomaly_fraction: float = 0.0,
    group: str = "",
) -> Iterator[Batch]:
    """One pass over `items`.

    Args:
      dataset: reads the items.
      items: the split.
      transform: resize and crop.
      batch_size: rows of a batch; a shorter one is padded with zeros and `valid=False`.
      shuffle: words that seed the order (seed, phase, epoch), or None for the order of `items`.
      start: the number of batches to leave out at the beginning.
      workers: threads that decode; 0 decodes in the caller's thread.
      process: (index, count); each process reads its own part of every batch, consecutive rows.
      multiple: every batch is padded to a multiple of so many rows (devices); a multiple of the number of processes.
      raw: images of 8 bits stay uint8, for `images.unit_range` on the device; float32 in [0, 1] otherwise.
      inputs, prepare: of the detector, see `Detector`.
      augment, anomaly_fraction, group: of the phase, see `Phase`; they need `shuffle`.

    Raises:
      UserError: images of different sizes, or inputs that the data set does not have.
    """
    check_inputs(dataset, inputs)
    own, rows = _own_rows(_plan(items, batch_size, shuffle, anomaly_fraction, group), batch_size, start, process, multiple)
    partners = _normal_by_category(items) if augment else {}
    shape = []

    def whole(item: Item):
        image, mask = read(dataset, item)
        return transform.resample(image), transform.mask(mask)

    if transform.tile is not None:
        # the tiles of an image are consecutive, so it is decoded once
        whole = functools.lru_cache(_DECODED)(whole)

    def pixels(item: Item):
        image, mask = whole(item._replace(tile=None))
        if not shape:
            shape.append(image.shape)
        if image.shape != shape[0]:
            raise UserError(
                f"images of different sizes in one split: {item.path} is {image.shape[1]}x{image.shape[0]} and another is "
                f"{shape[0][1]}x{shape[0][0]} after data.resize and data.crop; set both so that one size comes out"
            )
        return (image, mask) if item.tile is None else tuple(cut(each, item.tile, transform.tile) for each in (image, mask))

    def load(row: tuple[int, int]):
        drawn, position = row
        if drawn < 0:
            return ()
        item = items[position]
        image, mask = pixels(item)
        label = item.label
        if item.tile is not None:
            # a tile beside the defect is normal
            label = int(label and (mask.any() or not dataset.has_masks))
        extra = {}
        if "xyz" in inputs:
            xyz = transform.points(dataset.points(item))
            extra["xyz"] = xyz if item.tile is None else cut(xyz, item.tile, transform.tile)
        if prepare:
            extra |= prepare(to_float(image), extra)
        if augment:
            rng = np.random.default_rng((*shuffle, _AUGMENT, drawn))
            others = [other for other in partners[item.category] if other != position] or [position]

            def draw():
                return to_float(pixels(items[others[rng.integers(len(others))]])[0])

            extra |= augment(rng, to_float(image), draw)
        return image if raw else to_float(image), mask, label, _category(dataset, item), position, extra

    loaded = grain.MapDataset.source(rows).map(load).batch(own, batch_fn=list)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * max(1, workers) if workers else 0)
    for part in loaded.to_iter_dataset(options):
        real = [row for row in part if row]
        # a part without a single image still has the shape of one
        yield pad_batch(real, own) if real else _blank(pad_batch([load((0, 0))], own))


def check_inputs(dataset: Dataset, inputs: Sequence[str]) -> None:
    """A UserError where the data set does not have what a detector needs beside images."""
    for name in inputs:
        if name != "xyz" or dataset.points is None:
            raise UserError(f"this detector needs {name!r} of every image, and the data set {dataset.name} has none")


def _category(dataset: Dataset, item: Item) -> int:
    """-1 for images of another data set."""
    return dataset.categories.index(item.category) if item.category in dataset.categories else -1


def _normal_by_category(items: Sequence[Item]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for position, item in enumerate(items):
        # every category has a list, if only of its anomalies
        own = found.setdefault(item.category, [])
        if not item.label:
            own.append(position)
    return found


def index_batches(
    dataset: Dataset,
    items: Sequence[Item],
    batch_size: int,
    *,
    shuffle: tuple[int, ...],
    start: int = 0,
    group: str = "",
) -> Iterator[Batch]:
    """The batches of `batches` for one device, of normal images whose pixels nobody reads: nothing is decoded."""
    own, rows = _own_rows(_plan(items, batch_size, shuffle, 0.0, group), batch_size, start, (0, 1), 1)
    categories = np.array([_category(dataset, item) for item in items], np.int32)
    for begin in range(0, len(rows), own):
        index = np.array([position for _, position in rows[begin : begin + own]], np.int32)
        valid = index >= 0
        zeros = np.zeros(own, np.int32)
        yield Batch(None, (), np.where(valid, categories[index], 0), index, {}, valid, None, zeros)


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
        features=(),
        category=pad(categories, np.int32),
        index=pad(indices, np.int32, -1),
        extra={name: pad(np.stack([extra[name] for extra in extras]), extras[0][name].dtype) for name in extras[0]},
        valid=pad(np.ones(len(rows)), bool),
        mask=pad(masks, np.uint8),
        label=pad(labels, np.int32),
    )
