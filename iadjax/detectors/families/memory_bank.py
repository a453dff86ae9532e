"""The memory bank: it is filled, within a budget if there is one, and then thinned."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from iadjax import ops, progress
from iadjax.detector import Batch, DataSpec, Detector, Phase, abstract_batch
from iadjax.detectors.families.bank import Bank, Growing, Memory, behind_bank, behind_memory, merge_growing, merge_memories
from iadjax.errors import UserError
from iadjax.parallel.axis import AXIS, all_rows

__all__ = [
    "add_images",
    "bank_partition",
    "bank_phase",
    "capacity",
    "coreset",
    "empty_bank",
    "init_bank",
    "memory_bank",
    "remember",
]


def coreset(
    key: jax.Array, features: jax.Array, number: int, size: int, eps: float = 0.9, *, from_mean: bool = False
) -> jax.Array:
    """Indices `[number]` of a greedy k-centre coreset of the first `size` rows of `[R, D]`, chosen on a random projection.

    Args:
      key: PRNG key.
      features: `[R, D]`.
      number: of centres.
      size: rows that are points.
      eps: distortion of the projection.
      from_mean: begin with the row farthest from the mean of all, whatever their order, instead of a random one.
    """
    projection_key, start_key = jax.random.split(key)
    projected = ops.sparse_random_projection(projection_key, features, eps, size=size)
    if from_mean:
        start = int(_farthest_from_mean(projected, jnp.int32(size)))
    else:
        start = int(jax.random.randint(start_key, (), 0, size))
    with progress.track("coreset", number, "centre") as report:
        return ops.k_center_greedy(projected, number, start, progress=report, size=size)


@jax.jit
def _farthest_from_mean(points: jax.Array, size: jax.Array) -> jax.Array:
    real = (jnp.arange(len(points)) < size)[:, None]
    mean = jnp.sum(jnp.where(real, points, 0), axis=0, keepdims=True) / size.astype(points.dtype)
    return jnp.argmax(jnp.sum(jnp.where(real, points - mean, 0) ** 2, axis=1))


def capacity(bank_bytes: int, depth: int) -> int:
    """Rows of `depth` float32 that fit into a budget, including the memory for compressing them.

    Choosing takes the projection and its centred copy. Afterwards the chosen rows lie beside the old ones, with their origins.
    """
    projected = ops.johnson_lindenstrauss_dimension(max(2, bank_bytes // (4 * depth)), 0.9)
    beside = max(depth, 2 * projected if projected < depth else depth)
    return bank_bytes // (4 * (depth + beside + 10))


def _patches(describe: Callable, frozen, batch: Batch) -> jax.Array:
    """`[B, P, D]`."""
    features = describe(frozen, batch)
    return features.reshape(features.shape[0], -1, features.shape[-1])


def init_bank(describe: Callable, frozen, spec: DataSpec, bank_bytes: int = 0) -> Bank:
    """An empty bank for all training images, or for as many as the budget holds.

    Raises:
      UserError: a budget that does not hold a few images.
    """
    batch = abstract_batch(spec)
    _, patches, depth = jax.eval_shape(lambda frozen, batch: _patches(describe, frozen, batch), frozen, batch).shape
    rows = spec.num_images * patches
    if bank_bytes:
        number = capacity(bank_bytes, depth)
        if number < 4 * patches:
            raise UserError(
                f"detector.bank_bytes={bank_bytes} holds {number} patches, fewer than the {4 * patches} of four images; "
                f"give at least {4 * patches * bank_bytes // max(number, 1) + 1}, or shrink the images"
            )
        rows = min(rows, number + spec.batch_size * patches)
    return empty_bank(rows, patches, depth)


def empty_bank(rows: int, patches: int, depth: int) -> Bank:
    """A bank with room for so many rows of `depth` numbers, `patches` of them from each image."""
    size = ops.padded_rows(rows)
    # arrays of their own: the driver donates them
    counts = (jnp.int32(number) for number in (0, 0, patches))
    return Bank(jnp.zeros((size, depth)), jnp.zeros((size, 3), jnp.int32), *counts)


def add_images(bank: Bank, features: jax.Array, batch: Batch) -> Bank:
    """The bank with the patches `[B, P, D]` of a batch appended."""
    patches = features.shape[1]
    rows = features.shape[0]
    position = jnp.broadcast_to(jnp.arange(patches, dtype=jnp.int32), (rows, patches))
    image, category = (jnp.broadcast_to(each[:, None], (rows, patches)) for each in (batch.index, batch.category))
    origin = jnp.stack([image, position, category], axis=-1)
    features, origin, valid = all_rows((features, origin, batch.valid))
    # padded rows get a slot past the end, where nothing is written
    slots = bank.rows + (jnp.cumsum(valid, dtype=jnp.int32) - 1) * patches
    slots = jnp.where(valid, slots, len(bank.features))
    number = jnp.sum(valid, dtype=jnp.int32)
    return Bank(
        ops.write_rows(bank.features, features, slots),
        ops.write_rows(bank.origin, origin, slots),
        bank.rows + number * patches,
        bank.count + number,
        bank.patches,
    )


def _compress(key: jax.Array, bank: Bank, bank_bytes: int) -> Bank:
    """The bank; if the last batch has filled it, a coreset of it."""
    features, origin = bank.features, bank.origin
    rows, count, patches = (int(each) for each in jax.device_get((bank.rows, bank.count, bank.patches)))
    number = capacity(bank_bytes, features.shape[1])
    kept = number // 2
    # patches of the whole images that fit into an empty bank, and behind a compressed one
    first, more = (room // patches * patches for room in (number, number - kept))
    while rows > (full := first if rows == count * patches else kept + more):
        seen = count * patches
        # the number of this compression follows from the number of patches that were compressed before
        compression = 0 if rows == seen else 1 + (seen - (rows - kept) - first) // more
        index = np.sort(coreset(jax.random.fold_in(key, compression), features, kept, full))
        index = np.concatenate([index, np.arange(full, rows, dtype=np.int32)])
        padded = np.pad(index, (0, len(features) - len(index)), constant_values=-1)
        features, origin = ops.take_rows(features, padded), ops.take_rows(origin, padded, fill=-1)
        rows = len(index)
    return bank if features is bank.features else Bank(features, origin, jnp.int32(rows), bank.count, bank.patches)


def remember(bank: Bank, index: np.ndarray | jax.Array, weights: np.ndarray | None = None) -> Memory:
    """The chosen rows of a bank, with their weights or 1."""
    if len(index) == int(bank.rows) == len(bank.features):
        features, origin = bank.features, bank.origin
    else:
        features, origin = ops.take_rows(bank.features, index), ops.take_rows(bank.origin, index, fill=-1)
    given = jnp.ones(len(index)) if weights is None else jnp.asarray(weights, jnp.float32)
    weights = jnp.pad(given, (0, len(features) - len(index)))
    return Memory(features, weights, origin, jnp.int32(len(index)), bank.count, bank.patches)


def bank_partition(state: Any) -> Any:
    """`Detector.partition` of a state that is or holds banks: their rows are split, everything else is on every device."""
    if isinstance(state, Bank | Memory):
        arrays = {"features", "origin", "weights"}
        return type(state)(*(PartitionSpec(AXIS) if name in arrays else PartitionSpec() for name in state._fields))
    return type(state)(*(bank_partition(part) if _is_bank(part) else PartitionSpec() for part in state))


def _is_bank(part: Any) -> bool:
    return isinstance(part, Bank | Memory | Growing)


def bank_phase(
    describe: Callable, choose: Callable, bank_bytes: int = 0, incremental: bool = False, name: str = "fit", **fields
) -> Phase:
    """The phase of a state that is a `Bank` and becomes a `Memory`, or `Growing`.

    Args:
      describe: `(frozen, batch) -> [B, ..., D]`, the features to keep, made from `batch.features`.
      choose: `(key, bank) -> (indices [M] int32, weights [M] or None)`, once, outside jit: which of the first `bank.rows` rows
        stay, and their weights.
      bank_bytes, incremental: see `memory_bank`.
      name: of the phase.
      **fields: further fields of the `Phase`.
    """

    def update(key, state, frozen, batch):
        del key
        state = add_images(state, _patches(describe, frozen, batch), batch)
        return state, {"bank_images": state.count, "bank_rows": state.rows}

    def between(key, state, frozen):
        del frozen
        return _compress(key, state, bank_bytes)

    def finalize(key, state, frozen):
        del frozen
        memory = remember(state, *choose(key, state))
        return Growing(memory, state) if incremental else memory

    def finalized(state):
        memory = Memory(state.features, state.rows, *state[1:])
        return Growing(memory, state) if incremental else memory

    return Phase(name, update, finalize, between=between if bank_bytes else None, finalized=finalized, **fields)


def memory_bank(
    describe: Callable,
    choose: Callable,
    predict: Callable,
    bank_bytes: int = 0,
    incremental: bool = False,
    *,
    embed: Callable,
    **phase,
) -> Detector:
    """A detector that keeps features of normal images.

    One pass over the training images writes their features into a buffer that `init` allocates. `finalize` keeps the chosen
    ones. `bank_bytes` bounds the buffer and the memory for compressing it, for any number of images. A full buffer is replaced
    by a greedy coreset of half its rows, and filling continues behind it (merge and reduce). When that happens depends on
    neither batches nor devices.

    Args:
      describe, choose: see `bank_phase`.
      predict: `(memory, frozen, batch) -> Prediction`.
      bank_bytes: budget, over all devices, beside one batch of features; 0: as much as it takes.
      incremental: keep all rows in the state, or what the budget left of them. A fit on further images (`start` of
        `iadjax.fit`) then chooses from the rows of all images. Without a budget that is the choice of one fit on all of them,
        if `choose` does not depend on the order of rows. Otherwise the rows that were chosen are all that is left.
      embed: see `Detector`.
      **phase: further fields of the `Phase`.

    Raises:
      UserError: a negative budget; in `init`: one that does not hold a few images.
    """
    if bank_bytes < 0:
        raise UserError(f"detector.bank_bytes must be at least 0 (0: no limit), got {bank_bytes}")

    def init(key, frozen, spec):
        del key
        return init_bank(describe, frozen, spec, bank_bytes)

    return Detector(
        init=init,
        phases=lambda spec: (bank_phase(describe, choose, bank_bytes, incremental, **phase),),
        predict=(lambda state, frozen, batch: predict(state.memory, frozen, batch)) if incremental else predict,
        embed=embed,
        partition=bank_partition,
        warm_start=behind_bank if incremental else behind_memory,
        merge=merge_growing if incremental else merge_memories,
    )
