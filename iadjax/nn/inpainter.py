"""A transformer that restores a hidden patch from the others of its window (InTra, Pirnay & Chai, ICIAP 2022)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.nn.layers import Dropout, linear

__all__ = ["Inpainter"]


class _Block(nn.Module):
    """Attention whose queries and keys come from small networks (section 3.2), a feed-forward network; both pre-normalised."""

    heads: int
    dropout: float

    @nn.compact
    def __call__(self, x, train):
        batch, tokens, d = x.shape

        def twice(y, hidden, features, names, rate=0.0):
            y = nn.gelu(linear(hidden, y.shape[-1], names[0])(y), approximate=False)
            return linear(features, hidden, names[1])(Dropout(rate, deterministic=not train)(y))

        y = nn.LayerNorm(epsilon=1e-5, name="sublayer_0_norm")(x)
        q, k = (twice(y, 2 * d, d // 2, (f"{name}_0", f"{name}_2")) for name in ("MLP_q", "MLP_k"))
        v = linear(d, d, "linear_v")(y)
        q, k, v = (each.reshape(batch, tokens, self.heads, -1) for each in (q, k, v))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5)
        x += linear(d, d, "linear")(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))
        y = nn.LayerNorm(epsilon=1e-5, name="sublayer_1_norm")(x)
        return x + twice(y, 4 * d, d, ("w_1", "w_2"), self.dropout)


class Inpainter(nn.Module):
    """The transformer, with the names of the known re-implementation.

    Attributes:
      grid: patches of an image along its height and its width.
      d: width of the tokens.
      blocks, heads: how many.
      dropout: its rate in the feed-forward networks.
    """

    grid: tuple[int, int]
    d: int
    blocks: int
    heads: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, patches: jax.Array, positions: jax.Array, hole: jax.Array, train: bool = False) -> jax.Array:
        """Restores a hidden patch of each window.

        Args:
          patches: the visible ones, `[W, L^2 - 1, K^2 C]`.
          positions: theirs in the image's grid, row by row, `[W, L^2 - 1]` int32.
          hole: that of the hidden one, `[W]` int32.
          train: with dropout.

        Returns:
          `[W, K^2 C]`.
        """
        numbers = patches.shape[-1]
        embedding = self.param("pos_embedding_glb", nn.initializers.normal(1.0), (self.grid[0] * self.grid[1], self.d))
        inpaint = self.param("x_inpaint", nn.initializers.normal(1.0), (1, 1, self.d))
        tokens = linear(self.d, numbers, "lin_proj")(patches) + embedding[positions]
        x, outputs = jnp.concatenate([inpaint + embedding[hole][:, None], tokens], axis=1), []
        for i in range(self.blocks):
            # long skip connections (figure 2)
            x = x + outputs[self.blocks - i] if 2 * i > self.blocks else x
            x = _Block(self.heads, self.dropout, name=f"layers_{i}")(x, train)
            outputs.append(x)
        x = nn.LayerNorm(epsilon=1e-5, name="norm")(x)
        return linear(numbers, self.d, "proj")(jnp.mean(x, axis=1))
