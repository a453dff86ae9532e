"""The memory bank: filling it, within a budget if need be, and choosing what stays."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from iadjax import ops, progress
from iadjax.detector import Detector, Phase
from iadjax.errors import UserError
from iadjax.parallel.axis import AXIS

__all__ = ["Bank", "capacity", "coreset", "memory_bank"]


class Bank(NamedTuple):
    """State of a memory-bank detector.

    Attributes:
      features: `[R, D]` float32, split over the devices by rows (see `ops.padded_rows`); once it is reduced, rows past the
        bank's are `ops.FAR`, which no search finds.
      rows: int32 scalar; how many of them hold features.
      count: int32 scalar; images seen so far.
      places: int32 scalar; patches of one image.
    """

    features: jax.Array
    rows: jax.Array
    count: jax.Array
    places: jax.Array


def coreset(key: jax.Array, features: jax.Array, number: int, size: int, eps: float = 0.9) -> jax.Array:
    """Indices `[number]` of a greedy k-centre coreset of the first `size` rows of `[R, D]`, chosen on a random projection."""
    projection_key, start_key = jax.random.split(key)
    projected = ops.sparse_random_projection(projection_key, features, eps, size=size)
    start = int(jax.random.randint(start_key, (), 0, size))
    with progress.track("coreset", number, "centre") as report:
        return ops.k_center_greedy(projected, number, start, progress=report, size=size)


def capacity(bank_bytes: int, depth: int) -> int:
    """Rows of `depth` float32 that fit into a budget together with what compressing them takes.

    That is the projection and its centred copy while choosing, then the chosen rows beside the old ones, and a few numbers.
    """
    projected = ops.johnson_lindenstrauss_dimension(max(2, bank_bytes // (4 * depth)), 0.9)
    beside = max(depth, 2 * projected if projected < depth else depth)
    return bank_bytes // (4 * (depth + beside + 4))


def memory_bank(embed: Callable, choose: Callable, predict: Callable, bank_bytes: int = 0) -> Detector:
    """A detector that remembers features of normal images.

    One pass over the training images writes their features into a buffer allocated in `init`; `finalize` keeps the chosen
    ones. With `bank_bytes` the buffer and what compressing it takes stay within so many bytes, however many images there are:
    when it is full it is replaced by a greedy coreset of half its rows, and filling goes on behind it (merge and reduce). That
    happens at numbers of images that depend on neither batches nor devices.

    Args:
      embed: `(frozen, image [B, H, W, 3]) -> [B, h, w, D]`, the features to remember.
      choose: `(key, features [R, D], size, seen) -> indices [M] int32`, once, outside jit: which of the first `size` rows to
        keep, where the images had `seen` patches.
      predict: `(bank [M, D], frozen, image) -> Prediction`; the bank may end in rows of `ops.FAR`.
      bank_bytes: budget, over all devices, beside one batch of features; 0: as much as it takes.

    Raises:
      UserError: a negative budget; in `init`: one that does not hold a few images.
    """
    if bank_bytes < 0:
        raise UserError(f"detector.bank_bytes must be at least 0 (0: no limit), got {bank_bytes}")

    def patches(frozen, image):
        features = embed(frozen, image)
        return features.reshape(features.shape[0], -1, features.shape[-1])

    def init(key, frozen, spec):
        del key
        image = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
        _, places, depth = jax.eval_shape(patches, frozen, image).shape
        rows = spec.num_images * places
        if bank_bytes:
            number = capacity(bank_bytes, depth)
            if number < 4 * places:
                raise UserError(
                    f"detector.bank_bytes={bank_bytes} holds {number} patches, fewer than the {4 * places} of four images; "
                    f"give at least {4 * places * bank_bytes // max(number, 1) + 1}, or shrink the images"
                )
            rows = min(rows, number + spec.batch_size * places)
        features = jnp.zeros((ops.padded_rows(rows), depth), jnp.float32)
        return Bank(features, jnp.int32(0), jnp.int32(0), jnp.int32(places))

    def update(key, state, frozen, batch):
        del key
        features = patches(frozen, batch.image)
        places = features.shape[1]
        # padded rows get a slot past the end, which is left out
        slots = state.rows + (jnp.cumsum(batch.valid, dtype=jnp.int32) - 1) * places
        written = ops.write_rows(state.features, features, jnp.where(batch.valid, slots, len(state.features)))
        number = jnp.sum(batch.valid, dtype=jnp.int32)
        state = Bank(written, state.rows + number * places, state.count + number, state.places)
        return state, {"bank_images": state.count, "bank_rows": state.rows}

    def between(key, state, frozen):
        """Compresses the bank where the batch has filled it."""
        del frozen
        features = state.features
        rows, count, places = (int(each) for each in jax.device_get((state.rows, state.count, state.places)))
        number = capacity(bank_bytes, features.shape[1])
        kept = number // 2
        # patches of as many whole images as fit: into an empty bank, and behind a compressed one
        first, more = (room // places * places for room in (number, number - kept))
        while rows > (full := first if rows == count * places else kept + more):
            seen = count * places
            # which compression it is follows from how many patches had been seen before those that are not compressed yet
            turn = 0 if rows == seen else 1 + (seen - (rows - kept) - first) // more
            index = np.sort(coreset(jax.random.fold_in(key, turn), features, kept, full))
            index = np.concatenate([index, np.arange(full, rows, dtype=np.int32)])
            features = ops.take_rows(features, np.pad(index, (0, len(features) - len(index)), constant_values=-1))
            rows = len(index)
        return state if features is state.features else Bank(features, jnp.int32(rows), state.count, state.places)

    def finalize(key, state, frozen):
        del frozen
        rows = int(state.rows)
        index = choose(key, state.features, rows, int(state.count) * int(state.places))
        everything = len(index) == rows == len(state.features)
        bank = state.features if everything else ops.take_rows(state.features, index)
        return Bank(bank, jnp.int32(len(index)), state.count, state.places)

    def carry(fresh, old):
        """The old bank, and the fresh buffer behind it: the next coreset is chosen from both."""
        kept = int(old.rows)
        index = np.full(ops.padded_rows(kept + len(fresh.features)), -1, np.int32)
        index[:kept] = np.arange(kept)
        return Bank(ops.take_rows(old.features, index), jnp.int32(kept), jnp.int32(int(old.count)), fresh.places)

    split = PartitionSpec(AXIS)
    return Detector(
        init=init,
        phases=(Phase("fit", update, finalize, between=between if bank_bytes else None),),
        predict=lambda state, frozen, image: predict(state.features, frozen, image),
        partition=lambda state: Bank(split, PartitionSpec(), PartitionSpec(), PartitionSpec()),
        carry=carry,
    )
