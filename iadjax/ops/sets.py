"""Nearest vectors between sets, one block of sets against one set at a time."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["largest_cosines", "mutual_distances", "unit_distance"]

_BLOCK_BYTES = 2**26
_BLOCK_SETS = 16


def unit_distance(cosine: jax.Array) -> jax.Array:
    """The Euclidean distance of unit vectors from their cosine."""
    return jnp.sqrt(jnp.maximum(2 - 2 * cosine, 0))


def largest_cosines(x: jax.Array, sets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For every vector the largest cosine within another set.

    Args:
      x: unit vectors `[P, C]`.
      sets: unit vectors `[G, Q, C]`.

    Returns:
      Those of x in each set `[G, P]`, and those of the sets in x `[G, Q]`: both from one product.
    """
    # one product for each set: XLA's CPU code takes one and a half times as long for a batched one
    cosines = [jnp.matmul(x, y.T, precision="highest") for y in sets]
    return jnp.stack([each.max(axis=1) for each in cosines]), jnp.stack([each.max(axis=0) for each in cosines])


_compiled = jax.jit(
    lambda sets, i, start, size: largest_cosines(sets[i], jax.lax.dynamic_slice_in_dim(sets, start, size)), static_argnums=3
)


def mutual_distances(sets: jax.Array, progress: Callable[[int, int], None] | None = None) -> np.ndarray:
    """The distance of every vector of every set to the nearest vector of every other set.

    Every pair of sets is compared once, for both directions. Only one set against a block of sets is ever held: 64 MiB of
    cosines, whatever the number of sets.

    Args:
      sets: unit vectors `[N, P, C]` float32.
      progress: called as `progress(done, N)` after each set.

    Returns:
      `[N, N, P]` float32 on the host: entry (i, j, p) is that of vector p of set i within set j; 0 on the diagonal.
    """
    number, patches, _ = sets.shape
    size = min(number, _BLOCK_SETS, max(1, _BLOCK_BYTES // (4 * patches**2)))
    cosine = np.ones((number, number, patches), np.float32)
    for i in range(number):
        for j in range(i + 1, number, size):
            # the last block begins earlier, so that all have one shape
            start = min(j, number - size)
            there, back = jax.device_get(_compiled(sets, i, start, size))
            kept = slice(j - start, None)
            cosine[i, j : start + size], cosine[j : start + size, i] = there[kept], back[kept]
        if progress is not None:
            progress(i + 1, number)
    return np.sqrt(np.maximum(2 - 2 * cosine, 0))
