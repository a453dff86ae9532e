"""The diffusion transformer (Peebles & Xie, ICCV 2023): blocks whose norms are shifted, scaled and gated by the time."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.nn.adm import time_code
from iadjax.nn.transformer import SelfAttention

__all__ = ["DiT", "grid_code"]

_xavier = nn.initializers.xavier_uniform()
_small = nn.initializers.normal(0.02)


def _norm(x: jax.Array) -> jax.Array:
    """Layer normalisation without scale and bias."""
    return nn.LayerNorm(epsilon=1e-6, use_scale=False, use_bias=False)(x)


def _modulated(x: jax.Array, shift: jax.Array, scale: jax.Array) -> jax.Array:
    return _norm(x) * (1 + scale[:, None]) + shift[:, None]


def _zero(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=nn.initializers.zeros, name=name)


def grid_code(height: int, width: int, depth: int) -> np.ndarray:
    """Positions of a grid as sines and cosines, `[height * width, depth]` float32; the columns code the first half."""
    quarter = depth // 4
    frequencies = 1 / 10000 ** (np.arange(quarter) / quarter)
    rows, columns = np.mgrid[:height, :width].reshape(2, -1, 1) * frequencies
    return np.concatenate([np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)], axis=1).astype(np.float32)


class Block(nn.Module):
    """Attention and a feed-forward network, each modulated and gated by the code of the time.

    Attributes:
      heads: of the attention.
      ratio: width inside the feed-forward network, in widths.
    """

    heads: int
    ratio: int

    @nn.compact
    def __call__(self, x: jax.Array, code: jax.Array) -> jax.Array:
        depth = x.shape[-1]
        parts = jnp.split(_zero(6 * depth, "adaLN_modulation_1")(nn.silu(code)), 6, axis=-1)
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = parts
        x = x + gate[:, None] * SelfAttention(self.heads, _xavier, name="attn")(_modulated(x, shift, scale))
        y = nn.Dense(self.ratio * depth, kernel_init=_xavier, name="mlp_fc1")(_modulated(x, shift_mlp, scale_mlp))
        y = nn.Dense(depth, kernel_init=_xavier, name="mlp_fc2")(nn.gelu(y, approximate=True))
        return x + gate_mlp[:, None] * y


class DiT(nn.Module):
    """The transformer on a grid of features, one token for each position; without classes.

    Attributes:
      width: of the tokens, a multiple of 4.
      depth: blocks.
      heads: of the attention.
      ratio: width inside the feed-forward networks, in widths.
    """

    width: int
    depth: int
    heads: int
    ratio: int = 4

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array) -> jax.Array:
        """`[B, h, w, C]` at times `[B]` to the noise in it, of the same shape."""
        number, height, width, channels = x.shape
        tokens = nn.Dense(self.width, kernel_init=_xavier, name="x_embedder_proj")(x.reshape(number, height * width, channels))
        # the positions are trained, from sines
        positions = self.param("pos_embed", lambda key: jnp.asarray(grid_code(height, width, self.width))[None])
        tokens = tokens + positions
        # cosines first
        code = jnp.roll(time_code(t, 256), 128, axis=-1)
        code = nn.Dense(self.width, kernel_init=_small, name="t_embedder_mlp_0")(code)
        code = nn.Dense(self.width, kernel_init=_small, name="t_embedder_mlp_2")(nn.silu(code))
        for i in range(self.depth):
            tokens = Block(self.heads, self.ratio, name=f"blocks_{i}")(tokens, code)
        shift, scale = jnp.split(_zero(2 * self.width, "final_layer_adaLN_modulation_1")(nn.silu(code)), 2, axis=-1)
        return _zero(channels, "final_layer_linear")(_modulated(tokens, shift, scale)).reshape(x.shape)
