"""Parts of transformers that are trained on frozen features: the feed-forward network and several attentions."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.nn.attention import attend
from iadjax.nn.layers import Dropout

__all__ = ["CrossAttention", "LinearAttention", "Mlp", "SelfAttention", "dense", "norm"]

# the weights of decoders on frozen features begin near zero (Guo et al., CVPR 2025)
_small = nn.initializers.truncated_normal(0.01, lower=-3.0, upper=3.0)


def dense(features: int, name: str, init: Callable = _small) -> nn.Dense:
    """A linear layer whose weights are drawn from a normal distribution of 0.01, cut off at 0.03; biases are zero."""
    return nn.Dense(features, kernel_init=init, name=name)


def norm(name: str, epsilon: float = 1e-8) -> nn.LayerNorm:
    """Layer normalisation with the small epsilon of these decoders."""
    return nn.LayerNorm(epsilon=epsilon, name=name)


class Mlp(nn.Module):
    """Two layers with a GELU between, four times as wide inside.

    Attributes:
      dropout: its rate, after the GELU and after the second layer.
      noisy: whether dropout comes before the first layer too.
      kernel_init: draws the weights.
    """

    dropout: float = 0.0
    noisy: bool = False
    kernel_init: Callable = _small

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """`[B, N, C]` of the same shape; `train`: with dropout."""

        def drop(y):
            return Dropout(self.dropout, deterministic=not train)(y)

        depth = x.shape[-1]
        y = drop(x) if self.noisy else x
        y = drop(nn.gelu(dense(4 * depth, "fc1", self.kernel_init)(y), approximate=False))
        return drop(dense(depth, "fc2", self.kernel_init)(y))


class LinearAttention(nn.Module):
    """Attention with elu(x) + 1 in place of the softmax (Katharopoulos et al., ICML 2020); its cost is linear in the tokens.

    Attributes:
      heads: divides the channels.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` of the same shape."""
        batch, tokens, depth = x.shape
        qkv = dense(3 * depth, "qkv")(x).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = nn.elu(qkv[:, :, 0]) + 1, nn.elu(qkv[:, :, 1]) + 1, qkv[:, :, 2]
        weighted = jnp.einsum("bnhd,bnhe->bhde", k, v)
        total = jnp.einsum("bnhd,bhd->bnh", q, k.sum(axis=1))
        y = jnp.einsum("bnhd,bhde->bnhe", q, weighted) / total[..., None]
        return dense(depth, "proj")(y.reshape(x.shape))


class SelfAttention(nn.Module):
    """Scaled dot-product attention of tokens to each other.

    Attributes:
      heads: divides the channels.
      kernel_init: draws the weights.
    """

    heads: int
    kernel_init: Callable = _small

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, N, C]` of the same shape."""
        qkv = dense(3 * x.shape[-1], "qkv", self.kernel_init)(x).reshape(*x.shape[:2], 3, self.heads, -1)
        return dense(x.shape[-1], "proj", self.kernel_init)(attend(*(qkv[:, :, i] for i in range(3))).reshape(x.shape))


class CrossAttention(nn.Module):
    """Attention of tokens to other ones.

    Attributes:
      heads: divides the channels.
      cosine: weights are cosines times a learned scale of each head, and negative ones become zero; no softmax (INP-Former,
        Luo et al., CVPR 2025). False: the usual softmax of scaled products.
    """

    heads: int
    cosine: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, source: jax.Array) -> jax.Array:
        """`x [B, N, C]` and `source [B, M, C]` to `[B, N, C]`."""
        depth = x.shape[-1]
        q = dense(depth, "q")(x).reshape(*x.shape[:2], self.heads, -1)
        kv = dense(2 * depth, "kv")(source).reshape(*source.shape[:2], 2, self.heads, -1)
        k, v = kv[:, :, 0], kv[:, :, 1]
        if self.cosine:
            scale = self.param("learn_scale", nn.initializers.ones, (self.heads, 1, 1))
            weights = nn.relu(jnp.einsum("bnhd,bmhd->bhnm", _unit(q), _unit(k)) * scale[None])
        else:
            weights = jax.nn.softmax(jnp.einsum("bnhd,bmhd->bhnm", q, k) * q.shape[-1] ** -0.5)
        return dense(depth, "proj")(jnp.einsum("bhnm,bmhd->bnhd", weights, v).reshape(x.shape))


def _unit(x: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x**2, axis=-1, keepdims=True), 1e-24))
