"""Distances of all pairs of two small sets of vectors."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["PART_BYTES", "in_parts", "squared_distances"]

PART_BYTES = 2**26
"""What the distances of a whole batch may take before `in_parts` goes from image to image."""


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """|x|^2 + |y|^2 - 2 x.y of all pairs of `[N, D]` and `[M, D]`: `[N, M]`; rounding may make it negative."""
    first, second = (jnp.sum(each**2, axis=1) for each in (x, y))
    return first[:, None] + second[None] - 2 * jnp.matmul(x, y.T, precision="highest")


def in_parts(function: Callable, rows: Any, others: int) -> Any:
    """`function` of every row of a tree of arrays `[B, N, ...]`, one after the other where distances of all take too much.

    Args:
      function: of the tree without its first axis.
      rows: the tree.
      others: vectors whose distances to N ones the function holds.
    """
    batch, number = jax.tree.leaves(rows)[0].shape[:2]
    return (jax.vmap(function) if 4 * batch * number * others <= PART_BYTES else lambda x: jax.lax.map(function, x))(rows)
