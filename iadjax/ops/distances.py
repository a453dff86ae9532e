"""Distances of all pairs of two small sets of vectors."""

import jax
import jax.numpy as jnp

__all__ = ["squared_distances"]


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """|x|^2 + |y|^2 - 2 x.y of all pairs of `[N, D]` and `[M, D]`: `[N, M]`; rounding may make it negative."""
    first, second = (jnp.sum(each**2, axis=1) for each in (x, y))
    return first[:, None] + second[None] - 2 * jnp.matmul(x, y.T, precision="highest")
