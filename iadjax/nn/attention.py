"""Scaled dot-product attention, and several heads of it with PyTorch's tensors, so that its state dicts load."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.cpu.dispatch import by_platform
from iadjax.nn.layers import Conv, Dropout
from iadjax.nn.norms import BatchNorm
from iadjax.ops import per_channel

__all__ = ["CoordinateAttention", "MultiheadAttention", "attend"]

LOGITS_BYTES = 2**25
"""What the logits of one step may take on CPUs. They stay in the cache there, which is several times faster."""


SMALL_BYTES = 2**21
"""Logits up to this size are computed at once on CPUs: a loop over heads would cost more than it saves."""


def attend(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    """Scaled dot-product attention (Vaswani et al., 2017, eq. 1), `softmax(q k^T / sqrt(d)) v`, without all logits in memory.

    On CPUs one head of one image comes after the other, in parts of its queries where `LOGITS_BYTES` asks for it. Elsewhere it
    is `jax.nn.dot_product_attention`, with cuDNN for bfloat16 on GPUs.

    Args:
      q: `[B, Q, heads, d]`.
      k, v: `[B, K, heads, d]`.
      mask: `[Q, K]` bool; False: not seen.

    Returns:
      `[B, Q, heads, d]`.
    """
    masked = () if mask is None else (mask,)
    return by_platform(q, k, v, *masked, cpu=_by_head, default=_whole)


def _whole(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    fused = jax.default_backend() == "gpu" and q.dtype in (jnp.bfloat16, jnp.float16) and q.shape[-1] % 8 == 0
    seen = None if mask is None else mask[None, None]
    return jax.nn.dot_product_attention(q, k, v, mask=seen, implementation="cudnn" if fused else None)


def _by_head(q: jax.Array, k: jax.Array, v: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    batch, queries, heads, depth = q.shape
    keys = k.shape[1]
    if batch * heads * queries * keys * 4 <= SMALL_BYTES or queries * keys <= 64**2:
        return _whole(q, k, v, mask)
    parts = -(-queries * keys * 4 // LOGITS_BYTES)
    rows = -(-queries // parts)
    pad = parts * rows - queries
    q = jnp.pad(q * depth**-0.5, ((0, 0), (0, pad), (0, 0), (0, 0)))
    q = q.transpose(0, 2, 1, 3).reshape(batch * heads, parts, rows, depth)
    k, v = (x.transpose(0, 2, 1, 3).reshape(batch * heads, keys, depth) for x in (k, v))
    seen = None if mask is None else jnp.pad(mask, ((0, pad), (0, 0)), constant_values=True).reshape(parts, rows, keys)

    def one(q: jax.Array, k: jax.Array, v: jax.Array, seen: jax.Array | None) -> jax.Array:
        logits = jnp.dot(q, k.T, preferred_element_type=jnp.float32)
        if seen is not None:
            logits = jnp.where(seen, logits, -jnp.inf)
        return jax.nn.softmax(logits).astype(v.dtype) @ v

    def head(x: tuple[jax.Array, ...]) -> jax.Array:
        q, k, v = x
        if parts == 1:
            return one(q[0], k, v, None if seen is None else seen[0])
        each = (q,) if seen is None else (q, seen)
        return jax.lax.map(lambda part: one(part[0], k, v, part[1] if len(part) > 1 else None), each)

    y = jax.lax.map(head, (q, k, v)).reshape(batch, heads, parts * rows, depth)
    return y[:, :, :queries].transpose(0, 2, 1, 3)


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention (Vaswani et al., 2017) of several heads.

    Attributes:
      heads: number of heads; divides the channels.
      dropout: rate on the attention weights.
      out_init: draws the weights of the last layer.
    """

    heads: int
    dropout: float = 0.0
    out_init: Callable = nn.initializers.xavier_uniform()

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
        return nn.Dense(depth, kernel_init=self.out_init, name="out_proj")(out)

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)


class CoordinateAttention(nn.Module):
    """Attention along rows and columns (Hou et al., CVPR 2021): `[B, h, w, C]` of the same shape."""

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        rows, depth = x.shape[1], x.shape[-1]
        y = jnp.concatenate([x.mean(axis=2), x.mean(axis=1)], axis=1)[:, :, None]
        y = nn.hard_swish(BatchNorm(name="bn1")(Conv(max(8, depth // 32), 1, name="conv1")(y), valid))
        by_row = nn.sigmoid(Conv(depth, 1, name="conv_h")(y[:, :rows]))
        by_column = nn.sigmoid(Conv(depth, 1, name="conv_w")(y[:, rows:])).swapaxes(1, 2)
        return x * by_column * by_row
