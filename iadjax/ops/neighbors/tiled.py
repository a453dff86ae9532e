"""The search on one device: matrix products in tiles of bounded size."""

import functools

import jax
import jax.numpy as jnp

from iadjax.cpu.dispatch import by_platform

__all__ = ["search"]


# 2048 took a third longer on an H200
_QUERIES = 1024

_GROUP, _NARROW = 128, 16

# on CPUs a step stays within what malloc keeps; the pages of a larger request are new at every call
_CPU_BYTES = 12 * 2**20


def search(queries: jax.Array, bank: jax.Array, k: int, byte_budget: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The k rows of the bank with the smallest |b|^2 - 2 q.b for every query.

    Args:
      queries: `[Q, D]` float32.
      bank: `[N, D]` float32.
      k: neighbours for each query, at most N.
      byte_budget: bytes of distances and of parts of the bank that exist at a time.

    Returns:
      the values |b|^2 - 2 q.b, the Euclidean distances, both float32, and the indices, int32: `[Q, k]` each.
    """
    on_cpu = functools.partial(_tiled, k=k, byte_budget=min(byte_budget, _CPU_BYTES))
    default = functools.partial(_tiled, k=k, byte_budget=byte_budget)
    return by_platform(queries, bank, cpu=on_cpu, default=default)


def _tiled(queries: jax.Array, bank: jax.Array, k: int, byte_budget: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    num_queries, size = len(queries), len(bank)
    rows = min(_QUERIES, num_queries)
    # two tiles of distances and two blocks of the bank exist at a time
    columns = min(size, max(k, _GROUP, byte_budget // (8 * (rows + queries.shape[1])) // _GROUP * _GROUP))
    # as many tiles as before, of one size, so that the last one shares little
    columns = min(size, max(k, -(-size // (-(-size // columns)) // _GROUP) * _GROUP))
    offsets = jnp.arange(0, size, columns, dtype=jnp.int32)

    def tile(query, offset):
        # the last tile ends where the bank does; what it shares with the one before is infinitely far
        start = jnp.minimum(offset, size - columns)
        block = bank if columns == size else jax.lax.dynamic_slice_in_dim(bank, start, columns)
        # as a product: XLA:CPU fuses a plain sum into the search and takes a third longer
        norm = jnp.matmul(block**2, jnp.ones(block.shape[1], bank.dtype), precision="highest")
        norm = jnp.where(start + jnp.arange(columns) < offset, jnp.inf, norm)
        values, found = _smallest(norm[None] - 2 * jnp.matmul(query, block.T, precision="highest"), k)
        return values, found + start

    def search(query):
        def step(best, offset):
            candidates = [jnp.concatenate(pair, axis=1) for pair in zip(best, tile(query, offset), strict=True)]
            order = jax.lax.top_k(-candidates[0], k)[1]
            return tuple(jnp.take_along_axis(each, order, axis=1) for each in candidates), None

        best = tile(query, offsets[0])
        if len(offsets) > 1:
            best, _ = jax.lax.scan(step, best, offsets[1:])
        values, indices = best
        return values, jnp.linalg.norm(query[:, None] - bank[indices], axis=-1), indices

    if num_queries == rows:
        return search(queries)
    padded = jnp.pad(queries, [(0, -num_queries % rows), (0, 0)]).reshape(-1, rows, queries.shape[1])
    found = jax.lax.map(search, padded)
    return tuple(each.reshape(-1, k)[:num_queries] for each in found)


def _smallest(distances: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """The k smallest of each row `[Q, C]` and their columns; the lower column where equal."""
    width = _GROUP if k == 1 else _NARROW
    if k > 1 and distances.shape[1] < 4 * k * width:
        values, columns = jax.lax.top_k(-distances, k)
        return -values, columns.astype(jnp.int32)
    # minima of groups vectorise, a selection from the whole row does not; and the k smallest are in the k groups with the
    # smallest minima
    groups = jnp.pad(distances, [(0, 0), (0, -distances.shape[1] % width)], constant_values=jnp.inf)
    groups = groups.reshape(len(distances), -1, width)
    minima = jnp.min(groups, axis=-1)
    if k == 1:
        group = jnp.argmin(minima, axis=-1)
        inside = jnp.argmin(jnp.take_along_axis(groups, group[:, None, None], axis=1)[:, 0], axis=-1)
        return jnp.min(minima, axis=-1, keepdims=True), (group * width + inside).astype(jnp.int32)[:, None]
    # in the order of the columns, so that of equal ones the lower is taken
    chosen = jnp.sort(jax.lax.top_k(-minima, k)[1], axis=1)
    near = jnp.take_along_axis(groups, chosen[:, :, None], axis=1).reshape(len(distances), -1)
    values, inside = jax.lax.top_k(-near, k)
    columns = jnp.take_along_axis(chosen, inside // width, axis=1) * width + inside % width
    return -values, columns.astype(jnp.int32)
