"""The input pipeline: items to batches of one static shape, by Grain.

Decoding and resizing run in threads of the loader. The order is a function of (seed, epoch) alone, so a run that resumes
asks for the same epoch from a later batch and sees what the uninterrupted run would have seen.
"""

from collections.abc import Iterator, Sequence

import grain
import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.data.images import Transform
from iadjax.detector import Batch
from iadjax.errors import UserError

__all__ = ["batches", "num_batches", "pad_batch", "read_transformed"]


def read_transformed(dataset: Dataset, transform: Transform, item: Item) -> tuple[np.ndarray, np.ndarray]:
    """Image `[H, W, 3]` float32 and mask `[H, W]` uint8 of one item, at the network's input size."""
    image, mask = dataset.read(item)
    return transform.image(image), transform.mask(mask)


def num_batches(num_items: int, batch_size: int) -> int:
    """Batches of one pass, the padded last one included."""
    return -(-num_items // batch_size)


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
      process: (index, count); each process reads its own share of every batch.
    """
    order = np.arange(len(items)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(items))
    index, count = process
    shape = []

    def load(position: int):
        item = items[position]
        image, mask = read_transformed(dataset, transform, item)
        if not shape:
            shape.append(image.shape)
        if image.shape != shape[0]:
            raise UserError(
                f"images of different sizes in one split: {item.path} is {image.shape[1]}x{image.shape[0]} and another is "
                f"{shape[0][1]}x{shape[0][0]} after data.resize and data.crop; set both so that one size comes out"
            )
        return image, mask, item.label, dataset.categories.index(item.category), position

    source = grain.MapDataset.source(order[start * batch_size :].tolist())[index::count].map(load)
    rows = source.batch(batch_size // count, drop_remainder=False, batch_fn=list)
    options = grain.ReadOptions(num_threads=workers, prefetch_buffer_size=2 * max(1, workers) if workers else 0)
    for row in rows.to_iter_dataset(options):
        yield pad_batch(row, batch_size // count)


def pad_batch(rows, batch_size: int) -> Batch:
    """A batch of `batch_size` rows from `(image, mask, label, category, index)` tuples, padded with zeros."""
    images, masks, labels, categories, indices = (np.stack(column) for column in zip(*rows, strict=True))
    missing = batch_size - len(rows)

    def pad(array, dtype, value=0):
        return np.pad(array.astype(dtype), [(0, missing)] + [(0, 0)] * (array.ndim - 1), constant_values=value)

    return Batch(
        image=pad(images, np.float32),
        mask=pad(masks, np.uint8),
        label=pad(labels, np.int32),
        category=pad(categories, np.int32),
        index=pad(indices, np.int32, -1),
        valid=pad(np.ones(len(rows)), bool),
    )
