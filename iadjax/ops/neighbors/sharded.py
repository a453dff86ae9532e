"""The search with queries and bank split over devices."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from iadjax.ops.neighbors.tiled import search
from iadjax.ops.rows import FAR
from iadjax.parallel.axis import AXIS, num_shards

__all__ = ["sharded_search"]


def sharded_search(queries: jax.Array, bank: jax.Array, k: int, byte_budget: int) -> tuple[jax.Array, jax.Array]:
    """`tiled.search` with queries and bank split over the devices; it chooses what one device chooses.

    Args:
      queries: `[Q, D]` float32.
      bank: `[N, D]` float32.
      k: neighbours for each query, at most N.
      byte_budget: from this many bytes of queries and candidates on, queries go round the devices instead of being gathered.

    Returns:
      distances `[Q, k]` float32 and indices `[Q, k]` int32.
    """
    shards = num_shards()
    num_queries, depth = queries.shape
    queries = jnp.pad(queries, [(0, -num_queries % shards), (0, 0)])
    bank = jnp.pad(bank, [(0, -len(bank) % shards), (0, 0)], constant_values=FAR)
    # a part may hold fewer than k rows
    each = min(k, len(bank) // shards)

    def nearest(query, part):
        values, distances, indices = search(query, part, each, byte_budget)
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
            to_next = [(i, (i + 1) % shards) for i in range(shards)]
            return jax.tree.map(lambda x: jax.lax.ppermute(x, AXIS, to_next), (query, *joined)), None

        nothing = jnp.full((len(query), k), jnp.inf, query.dtype)
        # with indices past all others
        start = query, nothing, jnp.full(nothing.shape, jnp.iinfo(jnp.int32).max), nothing
        return jax.lax.scan(step, start, length=shards)[0][1:]

    size = len(queries) * (4 * depth + 12 * each)
    form = gathered if size <= byte_budget else ring
    _, indices, distances = jax.shard_map(form, in_specs=P(AXIS), out_specs=P(AXIS), check_vma=False)(queries, bank)
    return distances[:num_queries], indices[:num_queries]
