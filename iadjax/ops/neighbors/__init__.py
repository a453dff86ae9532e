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
    """The k nearest rows of a bank for every query, by Euclidean distance. Exact; usable inside `jax.jit`.

    What it computes (`neighbors.reference.reference`, which tests compare with):

        distances = np.stack([np.linalg.norm(query - bank, axis=1) for query in queries])   # [Q, N]
        indices = np.argsort(distances, axis=1, kind="stable")[:, :k]                       # [Q, k]
        distances = np.take_along_axis(distances, indices, axis=1)                          # [Q, k]

    How: neighbours are chosen by |b|^2 - 2 q.b, tile by tile. A step holds at most `byte_budget` bytes of distances and of the
    bank, or what 128 or k rows of the bank take. The returned distances are computed from the differences q - b, so they are
    accurate for near-duplicates. Two neighbours may change places where their squared distances differ by a few units of
    float32 rounding of |q|^2 + |b|^2.

    With a mesh (`placement.use`), every device searches its part of the bank. The queries are gathered on all devices. Where
    they and the candidates take more than `byte_budget`, the queries go round the devices instead, with the best found so far.

    Args:
      queries: `[Q, D]` float32.
      bank: `[N, D]` float32.
      k: neighbours for each query, from 1 to N; static.
      byte_budget: bytes of distances and of parts of the bank that exist at a time; static.

    Returns:
      distances `[Q, k]` float32, ascending, in the units of the rows, and indices `[Q, k]` int32; of equal distances the lower
      index comes first.

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
    distances, indices = jax.lax.sort((distances, indices), dimension=1, num_keys=2)
    return distances, indices
