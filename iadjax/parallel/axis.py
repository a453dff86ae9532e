"""The one axis that work is split over, `data`: all that `ops`, `losses` and detectors know of devices.

Under `jax.jit` arrays are global, and the functions for replicas are identities. Under `jax.pmap` each replica holds its rows
of a batch. `all_sum`, `all_rows`, `own_rows` and `first_row` bring together what one replica needs of the others.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["AXIS", "all_rows", "all_sum", "first_row", "num_replicas", "num_shards", "own_rows", "replicated"]

AXIS = "data"

_REPLICAS = contextvars.ContextVar("replicas", default=1)


def num_shards() -> int:
    """Size of the `data` axis for the code that is traced; 1 without a mesh and inside `shard_map`."""
    mesh = jax.sharding.get_abstract_mesh()
    free = AXIS in mesh.axis_names and AXIS not in mesh.manual_axes
    return mesh.shape[AXIS] if free else 1


@contextlib.contextmanager
def replicated(count: int) -> Iterator[None]:
    """Code that is traced inside belongs to one of `count` replicas along `AXIS`."""
    token = _REPLICAS.set(count)
    try:
        yield
    finally:
        _REPLICAS.reset(token)


def num_replicas() -> int:
    """Number of replicas that split a batch, for the code that is traced; 1 outside `jax.pmap`."""
    return _REPLICAS.get()


def all_sum(tree: Any) -> Any:
    """The sum over all replicas of every array of a tree; the tree itself with one replica."""
    return tree if num_replicas() == 1 else jax.lax.psum(tree, AXIS)


def all_rows(tree: Any) -> Any:
    """`[B, ...]` of one replica to `[replicas x B, ...]`: the rows of all replicas, in the order of the batch."""
    if num_replicas() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), tree)


def own_rows(draw: Callable[[int], jax.Array], rows: int, axis: int = 0) -> jax.Array:
    """This replica's rows of numbers that are drawn for a whole batch, so that they do not depend on the replicas.

    Args:
      draw: number of rows of the whole batch -> array.
      rows: number of rows of this replica.
      axis: the axis of the rows.
    """
    count = num_replicas()
    if count == 1:
        return draw(rows)
    return jax.lax.dynamic_slice_in_dim(draw(rows * count), jax.lax.axis_index(AXIS) * rows, rows, axis)


def first_row(x: jax.Array) -> jax.Array:
    """`x[0]` of the first replica, on every replica."""
    return x[0] if num_replicas() == 1 else all_sum(jnp.where(jax.lax.axis_index(AXIS) == 0, x[0], 0))
