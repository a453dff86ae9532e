"""Memories of items that features are read from, instead of being passed on."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.layers import uniform_bias

__all__ = ["BlockMemory", "addresses"]


def addresses(queries: jax.Array, items: jax.Array, shrink: float) -> jax.Array:
    """Which items a query is made of: softmax of cosines, without its small weights (Gong et al., ICCV 2019, eq. 3-7).

    Args:
      queries: `[..., D]`.
      items: `[N, D]`.
      shrink: lambda; weights below it become 0, and the others sum to 1 again.

    Returns:
      `[..., N]` weights.
    """
    cosines = jnp.einsum("...d,nd->...n", ops.unit(queries), ops.unit(items), precision="highest")
    weights = jax.nn.softmax(cosines)
    # eq. 6: continuous, unlike a threshold
    weights = jax.nn.relu(weights - shrink) * weights / (jnp.abs(weights - shrink) + 1e-12)
    return weights / jnp.maximum(jnp.sum(weights, axis=-1, keepdims=True), 1e-12)


class BlockMemory(nn.Module):
    """Reads feature maps block by block from a memory (Hou et al., ICCV 2021).

    A map is divided into blocks of `side` x `side` positions and a part of the channels. All blocks of the same channels share
    one memory.

    Attributes:
      items: N of each memory.
      side: positions of a block on both axes.
      groups: parts of the channels.
      shrink: see `addresses`.
    """

    items: int
    side: int
    groups: int
    shrink: float

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`[B, H, W, C]` to the same shape and the entropy of the addresses, the mean over blocks, `[B]`; sides must divide."""
        batch, height, width, depth = x.shape
        side, groups, part = self.side, self.groups, depth // self.groups
        blocks = x.reshape(batch, height // side, side, width // side, side, groups, part).transpose(5, 0, 1, 3, 2, 4, 6)
        queries = blocks.reshape(groups, -1, side * side * part)
        dimension = queries.shape[-1]
        memory = self.param("items", uniform_bias(dimension), (groups, self.items, dimension))
        weights = jax.vmap(addresses, in_axes=(0, 0, None))(queries, memory, self.shrink)
        read = jnp.einsum("gqn,gnd->gqd", weights, memory, precision="highest")
        y = read.reshape(blocks.shape).transpose(1, 2, 4, 3, 5, 0, 6).reshape(x.shape)
        entropy = -jnp.sum(weights * jnp.log(weights + 1e-12), axis=-1).reshape(groups, batch, -1)
        return y, jnp.mean(entropy, axis=(0, 2))
