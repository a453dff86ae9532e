"""A vector for each training image, kept as it is: for statistics that need all of them at once."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.detector import Phase
from iadjax.parallel.axis import all_rows

__all__ = ["Rows", "add_rows", "init_rows", "rows_of", "rows_phase"]


class Rows(NamedTuple):
    """State while images are seen.

    Attributes:
      count: int32 scalar; images so far.
      rows: `[N, ...]`, what is kept of each.
    """

    count: jax.Array
    rows: jax.Array


def init_rows(number: int, shape: tuple[int, ...]) -> Rows:
    """Room for so many images."""
    return Rows(jnp.zeros((), jnp.int32), jnp.zeros((number, *shape)))


def rows_of(state: Rows) -> np.ndarray:
    """The rows of the images that were seen, in float64."""
    return np.asarray(state.rows[: int(state.count)], np.float64)


def add_rows(rows: Rows, x: jax.Array, valid: jax.Array) -> Rows:
    """The rows with those of a batch `[B, ...]` after them, of the images where `valid [B]` is true."""
    x, valid = all_rows((x, valid))
    slots = rows.count + jnp.cumsum(valid, dtype=jnp.int32) - 1
    kept = rows.rows.at[jnp.where(valid, slots, len(rows.rows))].set(x, mode="drop")
    return Rows(rows.count + jnp.sum(valid, dtype=jnp.int32), kept)


def rows_phase(finalize, finalized) -> Phase:
    """The phase that keeps `batch.features`, an array `[B, ...]`, of every image.

    Args:
      finalize, finalized: of the `Phase`.
    """

    def update(key, state, frozen, batch):
        del key, frozen
        rows = add_rows(state, batch.features, batch.valid)
        return rows, {"images": rows.count}

    return Phase("fit", update, finalize, finalized=finalized)
