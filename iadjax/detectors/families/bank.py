"""States of a memory bank: while it fills, when it predicts, and when it may still grow."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops

__all__ = ["Bank", "Growing", "Memory", "behind_bank", "behind_memory", "merge_growing", "merge_memories"]


class Bank(NamedTuple):
    """A bank while it fills.

    Attributes:
      features: `[R, D]` float32, split over the devices by rows (see `ops.padded_rows`).
      origin: `[R, 3]` int32: the image's index in its split, the patch's position in the image, the category.
      rows: int32 scalar; how many rows hold features.
      count: int32 scalar; images seen so far.
      patches: int32 scalar; patches of one image.
    """

    features: jax.Array
    origin: jax.Array
    rows: jax.Array
    count: jax.Array
    patches: jax.Array


class Memory(NamedTuple):
    """The bank that predicts.

    Attributes:
      features: `[M, D]` float32, split as those of `Bank`; rows past the last one are `ops.FAR`, which no search finds.
      weights: `[M]` float32; what `choose` gave each row, 1 where it gave nothing.
      origin: `[M, 3]` int32, as in `Bank`.
      rows: int32 scalar; how many rows hold features.
      count: int32 scalar; images that were seen.
      patches: int32 scalar; patches of one image.
    """

    features: jax.Array
    weights: jax.Array
    origin: jax.Array
    rows: jax.Array
    count: jax.Array
    patches: jax.Array


class Growing(NamedTuple):
    """A bank that predicts and from which a later fit on further images goes on.

    Attributes:
      memory: the rows that predict.
      bank: all rows, or what the budget left of them.
    """

    memory: Memory
    bank: Bank


def behind_memory(fresh: Bank, old: Memory | Bank) -> Bank:
    """`Detector.warm_start` of a bank: the old rows, then the fresh buffer; the next coreset is that of both."""
    kept = int(old.rows)
    index = np.full(ops.padded_rows(kept + len(fresh.features)), -1, np.int32)
    index[:kept] = np.arange(kept)
    features, origin = ops.take_rows(old.features, index), ops.take_rows(old.origin, index, fill=-1)
    return Bank(features, origin, jnp.int32(kept), jnp.int32(int(old.count)), fresh.patches)


def merge_memories(states: Sequence[Memory], weights: np.ndarray) -> Memory:
    """`Detector.merge` of banks: the rows of all of them, one site after the other."""
    del weights
    bank, index = _joined(states)
    given = jnp.concatenate([state.weights for state in states])[index]
    return Memory(bank.features, jnp.pad(given, (0, len(bank.features) - len(index))), *bank[1:])


def _joined(states: Sequence[Memory | Bank]) -> tuple[Bank, np.ndarray]:
    """The rows of banks one after the other, and their indices in the arrays put together."""
    starts = np.cumsum([0, *(len(state.features) for state in states[:-1])])
    index = np.concatenate(
        [start + np.arange(int(state.rows)) for start, state in zip(starts, states, strict=True)], dtype=np.int32
    )

    def join(name, fill):
        return ops.take_rows(jnp.concatenate([getattr(state, name) for state in states]), index, fill=fill)

    count = jnp.int32(sum(int(state.count) for state in states))
    features, origin = join("features", ops.FAR), join("origin", -1)
    return Bank(features, origin, jnp.int32(len(index)), count, jnp.asarray(states[0].patches)), index


def behind_bank(fresh: Bank, old: Growing) -> Bank:
    """`Detector.warm_start` of a growing bank: all old rows, then the fresh buffer."""
    return behind_memory(fresh, old.bank)


def merge_growing(states: Sequence[Growing], weights: np.ndarray) -> Growing:
    """`Detector.merge` of growing banks: their memories, and all of their rows."""
    memory = merge_memories([state.memory for state in states], weights)
    bank, _ = _joined([state.bank for state in states])
    return Growing(memory, bank)
