"""Multi-head attention with PyTorch's tensors, so that its state dicts load."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.nn.layers import Dropout
from iadjax.ops import per_channel

__all__ = ["MultiheadAttention"]


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017) of several heads.

    Attributes:
      heads: number of heads; divides the channels.
      dropout: rate on the attention weights.
    """

    heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array | None = None, train: bool = False
    ) -> jax.Array:
        """`query [B, Q, C]`, `key` and `value [B, K, C]`, `mask [Q, K]` added to the logits -> `[B, Q, C]`."""
        depth = query.shape[-1]
        weight = self.param("in_proj_weight", nn.initializers.xavier_uniform(), (depth, 3 * depth))
        bias = self.param("in_proj_bias", nn.initializers.zeros, (3 * depth,))
        parts = zip((query, key, value), jnp.split(weight, 3, axis=1), jnp.split(bias, 3), strict=True)
        q, k, v = (self._split(x @ w + per_channel(b, x)) for x, w, b in parts)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) * (depth // self.heads) ** -0.5
        attention = jax.nn.softmax(logits if mask is None else logits + mask[None, None])
        attention = Dropout(self.dropout, deterministic=not train)(attention)
        out = jnp.einsum("bhqk,bkhd->bqhd", attention, v).reshape(query.shape)
        return nn.Dense(depth, kernel_init=nn.initializers.xavier_uniform(), name="out_proj")(out)

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)
