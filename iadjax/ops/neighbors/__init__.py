"""Exact nearest neighbours: one function, tiled on one device and sharded over several."""

import jax
import jax.numpy as jnp

from iadjax.errors import UserError
from iadjax.ops.neighbors.sharded import sharded_search
from iadjax.ops.neighbors.tiled import search
from iadjax.parallel.axis import num_shards

__all__ = ["BYTE_BUDGET", "nearest_neighbors"]


BYTE_BUDGET = 256 * 2**20
"""Default bound on the distances and the part of the bank that exist at a time."""


def nearest_neighbors(
    queries: jax.Array, bank: jax.Array, k: int = 1, *, byte_budget: int = BYTE_BUDGET
) -> tuple[jax.Array, jax.Array]:
    """The k nearest rows of a bank for every query, by Euclidean distance; exact search, usable inside `jax.jit`.

    The search compares |b|^2 - 2 q.b tile by tile; the distances and the part of the bank that a step holds are together at
    most `byte_budget` bytes, or what 128 or k rows of the bank take. The distances that are returned are computed from the
    differences q - b, so those of near-duplicates are accurate; which of two neighbours is taken is decided to a few units of
    float32 rounding of |q|^2 + |b|^2.

    Where there is a mesh (`placement.use`), every device searches its part of the bank: the queries are gathered, or, where
    they and the candidates would be more than `byte_budget`, sent round the ring of devices with the best they have met.

    Args:
      queries: `[Q, D]` float32.
      bank: `[N, D]` float32.
      k: neighbours per query, at most N; static.
      byte_budget: bytes of distances and of parts of the bank that exist at a time; static.

    Returns:
      distances `[Q, k]` float32, ascending, and indices `[Q, k]` int32; equal distances by the lower index.

    Raises:
      UserError: shapes that do not fit, or k outside [1, N].
    """
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise UserError(f"queries [Q, D] and bank [N, D] must have one D, got {queries.shape} and {bank.shape}")
    queries, bank = jnp.asarray(queries), jnp.asarray(bank)
    size = len(bank)
    if not 1 <= k <= size:
        raise UserError(f"k must be from 1 to the {size} rows of the bank, got {k}")
    if num_shards() > 1:
        distances, indices = sharded_search(queries, bank, k, byte_budget)
    else:
        _, distances, indices = search(queries, bank, k, byte_budget)
    if k == 1:
        return distances, indices
    return jax.lax.sort((distances, indices), dimension=1, num_keys=2)
