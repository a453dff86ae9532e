"""The transformer that restores feature tokens (UniAD, You et al., NeurIPS 2022; ADTR, ICONIP 2022), and its layers.

Layers are normalised after each residual. Positions join the queries and the keys of every attention, never its values.
"""

from collections.abc import Callable
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError
from iadjax.nn.attention import MultiheadAttention
from iadjax.nn.layers import Dropout

__all__ = ["Layer", "Reconstruction", "layer_norm", "learned_positions", "neighbor_mask", "xavier_dense"]


def xavier_dense(features: int, fan_in: int, name: str) -> nn.Dense:
    """A linear layer with weights by Xavier's rule, as in UniAD's code, and biases of zero; `fan_in` plays no part."""
    del fan_in
    return nn.Dense(features, kernel_init=nn.initializers.xavier_uniform(), name=name)


def layer_norm(name: str) -> nn.LayerNorm:
    """Layer normalisation with PyTorch's epsilon."""
    return nn.LayerNorm(epsilon=1e-5, name=name)


class Layer(nn.Module):
    """A layer of an encoder or of a decoder, with PyTorch's names.

    Attributes:
      heads, width, dropout: number of heads, channels of the feed-forward network, dropout rate.
      kind: "encoder": tokens attend to each other. "decoder": to each other, then to the memory. "query": tokens of the layer's
        own, which are learned, attend to the memory, then to those of the previous layer (UniAD, figure 4).
      dense: (features, fan in, name) -> a linear layer of the feed-forward network.
      out_init: draws the weights of the last layer of an attention.
    """

    heads: int
    width: int
    dropout: float
    kind: str
    dense: Callable[[int, int, str], nn.Dense] = xavier_dense
    out_init: Callable = nn.initializers.xavier_uniform()

    @nn.compact
    def __call__(self, x: jax.Array, memory: jax.Array, position: jax.Array, mask: jax.Array | None, train: bool) -> jax.Array:
        """`x` and `memory [B, N, C]`, `position [N, C]`, `mask [N, N]` added to the logits -> `[B, N, C]`."""

        def drop(y):
            return Dropout(self.dropout, deterministic=not train)(y)

        def attend(query, source, name):
            attention = MultiheadAttention(self.heads, self.dropout, self.out_init, name=name)
            return drop(attention(query + position[None], source + position[None], source, mask, train))

        if self.kind == "query":
            learned = self.param("learned_embed_weight", nn.initializers.normal(1.0), x.shape[1:])
            y, sources = jnp.broadcast_to(learned, x.shape), (memory, x)
        else:
            y, sources = x, ((x,) if self.kind == "encoder" else (x, memory))
        for number, (source, name) in enumerate(zip(sources, ("self_attn", "multihead_attn"), strict=False), start=1):
            y = layer_norm(f"norm{number}")(y + attend(y, source, name))
        depth = x.shape[-1]
        inner = drop(nn.relu(self.dense(self.width, depth, "linear1")(y)))
        return layer_norm(f"norm{len(sources) + 1}")(y + drop(self.dense(depth, self.width, "linear2")(inner)))


def learned_positions(module: nn.Module, grid: tuple[int, int], depth: int) -> jax.Array:
    """A code of each column beside one of each row, both parameters of `module`: `[h w, depth]`, row by row."""
    height, width = grid
    uniform, half = nn.initializers.uniform(1.0), depth // 2
    columns = module.param("pos_embed_col_embed_weight", uniform, (width, half))
    rows = module.param("pos_embed_row_embed_weight", uniform, (height, half))
    shape = (height, width, half)
    return jnp.concatenate([jnp.broadcast_to(columns, shape), jnp.broadcast_to(rows[:, None], shape)], -1).reshape(-1, depth)


class Reconstruction(nn.Module):
    """Feature tokens `[B, h, w, C]` to their reconstruction.

    Attributes:
      hidden, heads, width, dropout: channels inside, attention heads, feed-forward channels, dropout rate.
      num_encoder_layers, num_decoder_layers: how many layers there are.
      neighbor_size: side of the window that attention may not look into, odd; 0: it may look everywhere.
      layer_queries: every decoder layer has a learned query (UniAD); else the first one begins with the only one (ADTR).
    """

    hidden: int
    heads: int
    num_encoder_layers: int
    num_decoder_layers: int
    width: int
    dropout: float
    neighbor_size: int = 0
    layer_queries: bool = True

    @nn.compact
    def __call__(self, tokens: jax.Array, train: bool = False) -> jax.Array:
        batch, height, width, channels = tokens.shape
        mask = jnp.asarray(neighbor_mask(height, width, self.neighbor_size)) if self.neighbor_size else None
        position = learned_positions(self, (height, width), self.hidden)
        x = xavier_dense(self.hidden, channels, "input_proj")(tokens.reshape(batch, -1, channels))
        options = (self.heads, self.width, self.dropout)
        for i in range(self.num_encoder_layers):
            x = Layer(*options, "encoder", name=f"transformer_encoder_layers_{i}")(x, x, position, mask, train)
        memory = x
        if not self.layer_queries:
            query = self.param("query_embed_weight", nn.initializers.normal(1.0), x.shape[1:])
            x = jnp.broadcast_to(query, x.shape)
        kind = "query" if self.layer_queries else "decoder"
        for i in range(self.num_decoder_layers):
            x = Layer(*options, kind, name=f"transformer_decoder_layers_{i}")(x, memory, position, mask, train)
        x = xavier_dense(channels, self.hidden, "output_proj")(layer_norm("transformer_decoder_norm")(x))
        return x.reshape(tokens.shape)


@lru_cache
def neighbor_mask(height: int, width: int, size: int) -> np.ndarray:
    """`[h w, h w]`, minus infinity between a token and those in the window around it, itself included (UniAD, figure 5)."""
    y, x = np.divmod(np.arange(height * width), width)
    near = (np.abs(y[:, None] - y) <= size // 2) & (np.abs(x[:, None] - x) <= size // 2)
    if np.any(near.all(axis=1)):
        raise UserError(
            f"detector.neighbor_size={size} hides the whole {height}x{width} grid from some token; lower it or detector.stride"
        )
    return np.where(near, -np.inf, 0).astype(np.float32)
