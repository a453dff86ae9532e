"""Exact nearest neighbours in matrix products, in tiles of bounded size."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from iadjax.errors import UserError
from iadjax.ops.rows import FAR
from iadjax.platforms import by_platform
from iadjax.sharding import AXIS, num_shards

__all__ = ["BYTE_BUDGET", "nearest_neighbors"]

BYTE_BUDGET = 256 * 2**20
"""Default bound on the distances and the part of the bank that exist at a time."""

_QUERIES = 2048
_GROUP, _NARROW = 128, 16
# on CPUs a step stays within what malloc keeps: of a larger request every page is new at every call (docs/speed.md)
_CPU_QUERIES, _CPU_BYTES = 1024, 12 * 2**20


def nearest_neighbors(
    queries: jax.Array, bank: jax.Array, k: int = 1, *, byte_budget: int = BYTE_BUDGET
) -> tuple[jax.Array, jax.Array]:
    """The k nearest rows of a bank for every query, by Euclidean distance; exact search, usable inside `jax.jit`.

    The search compares |b|^2 - 2 q.b tile by tile; the distances and the part of the bank that a step holds are together at
    most `byte_budget` bytes, or what 128 or k rows of the bank take. The distances that are returned are computed from the
    differences q - b, so those of near-duplicates are accurate; which of two neighbours is taken is decided to a few units of
    float32 rounding of |q|^2 + |b|^2.

    Where there is a mesh (`sharding.use`), every device searches its part of the bank: the queries are gathered, or, where
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
        distances, indices = _sharded(queries, bank, k, byte_budget)
    else:
        _, distances, indices = _search(queries, bank, k, byte_budget)
    if k == 1:
        return distances, indices
    return jax.lax.sort((distances, indices), dimension=1, num_keys=2)


def _search(queries: jax.Array, bank: jax.Array, k: int, byte_budget: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The k nearest by |b|^2 - 2 q.b: these values, distances and indices, `[Q, k]` each."""
    on_cpu = functools.partial(_tiled, k=k, rows=_CPU_QUERIES, byte_budget=min(byte_budget, _CPU_BYTES))
    default = functools.partial(_tiled, k=k, rows=_QUERIES, byte_budget=byte_budget)
    return by_platform(queries, bank, cpu=on_cpu, default=default)


def _tiled(queries: jax.Array, bank: jax.Array, k: int, rows: int, byte_budget: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    num_queries, size = len(queries), len(bank)
    rows = min(rows, num_queries)
    # two tiles of distances and two blocks of the bank exist at a time
    columns = min(size, max(k, _GROUP, byte_budget // (8 * (rows + queries.shape[1])) // _GROUP * _GROUP))
    offsets = jnp.arange(0, size, columns, dtype=jnp.int32)

    def tile(query, offset):
        # the last tile ends where the bank does; what it shares with the one before is infinitely far
        start = jnp.minimum(offset, size - columns)
        block = bank if columns == size else jax.lax.dynamic_slice_in_dim(bank, start, columns)
        # as a product: XLA:CPU fuses a plain sum into the search and takes a third longer
        norm = jnp.matmul(block**2, jnp.ones(block.shape[1], bank.dtype), precision="highest")
        norm = jnp.where(start + jnp.arange(columns) < offset, jnp.inf, norm)
        values, found = _smallest(norm - 2 * jnp.matmul(query, block.T, precision="highest"), k)
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


def _sharded(queries: jax.Array, bank: jax.Array, k: int, byte_budget: int) -> tuple[jax.Array, jax.Array]:
    """`_search` with queries and bank split over the devices; the same choice as on one."""
    shards = num_shards()
    num_queries, depth = queries.shape
    queries = jnp.pad(queries, [(0, -num_queries % shards), (0, 0)])
    bank = jnp.pad(bank, [(0, -len(bank) % shards), (0, 0)], constant_values=FAR)
    # a part may hold fewer than k rows
    each = min(k, len(bank) // shards)

    def nearest(query, part):
        values, distances, indices = _search(query, part, each, byte_budget)
        return values, indices + len(part) * jax.lax.axis_index(AXIS), distances

    def best(candidates):
        return tuple(x[:, :k] for x in jax.lax.sort(candidates, dimension=1, num_keys=2))

    def gathered(query, part):
        found = nearest(jax.lax.all_gather(query, AXIS, tiled=True), part)
        # [shards, own queries, each]: what every device found for the queries of this one
        found = [jax.lax.all_to_all(x.reshape(shards, -1, each), AXIS, 0, 0) for x in found]
        return best(tuple(jnp.moveaxis(x, 0, 1).reshape(len(query), -1) for x in found))

    def ring(query, part):
        def step(carry, _):
            query, *met = carry
            joined = best(tuple(jnp.concatenate(pair, axis=1) for pair in zip(met, nearest(query, part), strict=True)))
            turn = [(i, (i + 1) % shards) for i in range(shards)]
            return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, turn), (query, *joined)), None

        nothing = jnp.full((len(query), k), jnp.inf, query.dtype)
        # with indices past all others
        start = query, nothing, jnp.full(nothing.shape, jnp.iinfo(jnp.int32).max), nothing
        return jax.lax.scan(step, start, length=shards)[0][1:]

    size = len(queries) * (4 * depth + 12 * each)
    search = gathered if size <= byte_budget else ring
    _, indices, distances = jax.shard_map(search, in_specs=P(AXIS), out_specs=P(AXIS), check_vma=False)(queries, bank)
    return distances[:num_queries], indices[:num_queries]


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
