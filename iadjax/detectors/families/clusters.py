"""Sums over the rows of each of many clusters, in matrix products over blocks of one cluster's rows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from iadjax.parallel.axis import all_rows, all_sum, num_shards

__all__ = ["add_by_cluster", "differences", "norms_by_cluster", "outer_products", "passed"]


def passed(seen: jax.Array, valid: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """Images of a pass with those of one more batch.

    Args:
      seen: int32 scalar; images of the pass so far, or of a pass that is over.
      valid: `[B]`, images of the batch that count.
      number: of images in a pass.

    Returns:
      the images of the pass with the batch's, and whether they are all.
    """
    seen = jnp.where(seen == number, 0, seen) + all_sum(jnp.sum(valid, dtype=jnp.int32))
    return seen, seen == number


def differences(x: jax.Array, mean: jax.Array, label: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows less the means of their clusters, and their labels, on every device.

    Args:
      x: `[N, D]`, rows of B images, as many of each.
      mean: `[K, D]`.
      label: `[N]`, clusters of the rows.
      valid: `[B]`, images that count; rows of others get the label K.
    """
    y = x - mean[label]
    label = jnp.where(jnp.repeat(valid, len(label) // len(valid)), label, len(mean))
    return _whole(all_rows(y)), _whole(all_rows(label))


def outer_products(rows: jax.Array) -> jax.Array:
    """The sum of r r^T over rows `[N, D]`: `[D, D]`."""
    return jnp.matmul(rows.T, rows, precision="highest")


def add_by_cluster(totals: jax.Array, rows: jax.Array, label: jax.Array, of: Callable, block: int) -> jax.Array:
    """Totals with what each cluster's rows add; rows are added in their order, so that a device always gives the same bytes.

    Args:
      totals: `[K, ...]`.
      rows: `[N, D]`.
      label: `[N]` int32 in [0, K); rows with other labels do not count.
      of: `[block, D] -> [...]`, a sum over rows, to which a row of zeros adds nothing.
      block: rows that `of` gets at a time; the last ones of a cluster are zeros.
    """
    order, first, blocks, last = _blocks(label, len(totals), block)

    def step(number, totals):
        cluster, index, inside = _block(order, first, blocks, last, block, number)
        part = jnp.where(inside[:, None], rows[index], 0)
        return totals.at[cluster].add(of(part))

    return jax.lax.fori_loop(0, last[-1], step, totals)


def norms_by_cluster(x: jax.Array, label: jax.Array, mean: jax.Array, factor: jax.Array, block: int) -> jax.Array:
    """|W_k (x - mu_k)| of rows `[N, D]` for k clusters each.

    Args:
      x: `[N, D]`.
      label: `[N, k]`, the clusters.
      mean, factor: mu `[K, D]` and W `[K, D, D]`.
      block: rows that are multiplied by a W at a time.

    Returns:
      `[N, k]`.
    """
    x, pairs = _whole(x), _whole(label.reshape(-1))
    order, first, blocks, last = _blocks(pairs, len(mean), block)

    def step(number, norms):
        cluster, index, inside = _block(order, first, blocks, last, block, number)
        y = x[index // label.shape[1]] - mean[cluster][None]
        found = jnp.linalg.norm(jnp.matmul(y, factor[cluster].T, precision="highest"), axis=1)
        return norms.at[jnp.where(inside, index, len(pairs))].set(found, mode="drop")

    return jax.lax.fori_loop(0, last[-1], step, jnp.zeros(len(pairs))).reshape(label.shape)


def _whole(x: jax.Array) -> jax.Array:
    """On every device of a mesh: a loop over blocks takes rows from anywhere."""
    return x if num_shards() == 1 else jax.lax.with_sharding_constraint(x, PartitionSpec())


def _blocks(label, clusters, block):
    """Rows in the order of their clusters; the beginning `[K + 1]`, the blocks `[K]` and the last block's end `[K]` of each."""
    order = jnp.argsort(label, stable=True)
    number = jnp.zeros(clusters, jnp.int32).at[label].add(1, mode="drop")
    first = jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(number, dtype=jnp.int32)])
    blocks = (number + block - 1) // block
    return order, first, blocks, jnp.cumsum(blocks, dtype=jnp.int32)


def _block(order, first, blocks, last, block, number):
    """The cluster of a block, its rows `[block]`, and which of them are its own."""
    cluster = jnp.searchsorted(last, number, side="right")
    place = first[cluster] + (number - last[cluster] + blocks[cluster]) * block + jnp.arange(block, dtype=jnp.int32)
    return cluster, order[jnp.minimum(place, len(order) - 1)], place < first[cluster + 1]
