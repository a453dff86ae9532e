"""Rows of matrices that are split over devices: written, read and chosen without the whole matrix on one device."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from iadjax.parallel.axis import AXIS, num_shards

__all__ = ["FAR", "padded_rows", "rows_at", "take_rows", "write_rows"]

FAR = 1e20
"""A row of this value is never a nearest neighbour: its square is infinite in float32, its product with a feature is finite."""

_MULTIPLE = 1024
_SMALL = 4096


def padded_rows(number: int) -> int:
    """The stored rows of a matrix of `number` rows: the next multiple of 1024, which 2, 4, ... 1024 devices divide.

    It does not depend on the number of devices, so neither does a checkpoint. Below 4096 rows it is `number` itself, and every
    device holds the whole matrix.
    """
    return number if number < _SMALL else -(-number // _MULTIPLE) * _MULTIPLE


def write_rows(buffer: jax.Array, values: jax.Array, starts: jax.Array) -> jax.Array:
    """Writes blocks of rows; a block that does not fit is left out as a whole.

    Args:
      buffer: `[R, D]`; split over the devices if there is a mesh.
      values: `[B, P, D]`.
      starts: `[B]` int32; the row of `buffer` for the first of a block's P rows; R leaves the block out.

    Returns:
      An array like `buffer`.
    """
    number, length, depth = values.shape
    if num_shards() == 1 or len(buffer) % num_shards():
        # one window per block: XLA:CPU runs a scatter window by window
        dimensions = jax.lax.ScatterDimensionNumbers((1, 2), (), (0,))
        mode = jax.lax.GatherScatterMode.FILL_OR_DROP
        return jax.lax.scatter(buffer, starts[:, None], values, dimensions, unique_indices=True, mode=mode)

    def local(part, values, starts):
        slots = starts[:, None] + jnp.arange(length)[None]
        slots = jnp.where((starts + length <= num_rows)[:, None], slots, num_rows).reshape(-1) - _first(part)
        slots = jnp.where(slots < 0, len(part), slots)
        return part.at[slots].set(values.reshape(-1, depth), mode="drop")

    num_rows = len(buffer)
    return jax.shard_map(local, in_specs=(P(AXIS), P(), P()), out_specs=P(AXIS), check_vma=False)(buffer, values, starts)


def rows_at(matrix: jax.Array, index: jax.Array) -> jax.Array:
    """`matrix[index]` of `[N, D]` for an index of any shape: `[..., D]`, the whole on every device."""
    if num_shards() == 1 or len(matrix) % num_shards():
        return matrix[index]
    local = functools.partial(_own_rows, reduce=lambda x: jax.lax.psum(x, AXIS))
    return jax.shard_map(local, in_specs=(P(AXIS), P()), out_specs=P(), check_vma=False)(matrix, index)


def _first(part: jax.Array) -> jax.Array:
    return jax.lax.axis_index(AXIS) * len(part)


def _own_rows(part: jax.Array, index: jax.Array, reduce: Callable) -> jax.Array:
    """Inside `shard_map`: each row from the device that has it. The sum is exact, because its other terms are zero."""
    own = index - _first(part)
    mine = (own >= 0) & (own < len(part))
    return reduce(jnp.where(mine[..., None], part[jnp.clip(own, 0, len(part) - 1)], 0))


@functools.partial(jax.jit, static_argnames="fill")
def take_rows(matrix: jax.Array, index: jax.Array, fill: float = FAR) -> jax.Array:
    """The chosen rows as a new matrix, padded to `padded_rows` and split over the devices.

    Args:
      matrix: `[N, D]`.
      index: `[M]` int32; -1 makes a row of `fill`, like the padding.
      fill: a value of the matrix's type.

    Returns:
      `[padded_rows(M), D]`. With a mesh, no device holds more than two parts of it at a time.
    """
    number, shards = len(index), num_shards()
    size = padded_rows(number)
    index = jnp.pad(index, (0, size - number), constant_values=-1)
    if shards == 1 or size % shards or len(matrix) % shards:
        return jnp.where((index >= 0)[:, None], rows_at(matrix, jnp.maximum(index, 0)), jnp.asarray(fill, matrix.dtype))

    def local(part, index):
        pieces, own = index.reshape(shards, -1), jax.lax.axis_index(AXIS)

        def step(kept, piece):
            rows = _own_rows(part, jnp.maximum(pieces[piece], 0), lambda x: jax.lax.psum(x, AXIS))
            return jnp.where(own == piece, rows, kept), None

        start = jnp.zeros((size // shards, part.shape[1]), part.dtype)
        rows = jax.lax.scan(step, start, jnp.arange(shards))[0]
        return jnp.where((pieces[own] >= 0)[:, None], rows, jnp.asarray(fill, matrix.dtype))

    return jax.shard_map(local, in_specs=(P(AXIS), P()), out_specs=P(AXIS), check_vma=False)(matrix, index)
