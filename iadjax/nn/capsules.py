"""A vision transformer whose tokens are capsules, and the decoder of one output capsule (VT-ADL, Mishra et al., ISIE 2021)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.attention import attend
from iadjax.nn.norms import BatchNorm
from iadjax.nn.transposed import ConvTranspose

__all__ = ["CAPSULE", "Encoder", "Restorer", "capsule"]

# numbers of a capsule of the encoder, and channels of the decoder's input
CAPSULE, CHANNELS = 8, 8

_kaiming = nn.initializers.kaiming_normal()


class _Block(nn.Module):
    """A pre-normalised transformer block; logits are divided by the root of the whole width, as in the authors' code."""

    heads: int
    hidden: int

    @nn.compact
    def __call__(self, x):
        batch, tokens, depth = x.shape
        y = nn.LayerNorm(epsilon=1e-5, name="norm_0")(x)
        qkv = nn.Dense(3 * depth, use_bias=False, kernel_init=_kaiming, name="to_qkv")(y)
        q, k, v = (each.reshape(batch, tokens, self.heads, -1) for each in jnp.split(qkv, 3, axis=-1))
        y = attend(q * self.heads**-0.5, k, v).reshape(x.shape)
        x += nn.Dense(depth, kernel_init=_kaiming, name="to_out")(y)
        y = nn.Dense(self.hidden, kernel_init=_kaiming, name="net_0")(nn.LayerNorm(epsilon=1e-5, name="norm_1")(x))
        return x + nn.Dense(depth, kernel_init=_kaiming, name="net_2")(nn.gelu(y, approximate=False))


class Encoder(nn.Module):
    """The vision transformer, with the names of the authors' code: `[B, H, W, 3]` to tokens `[B, N, dim]`, no class token.

    Attributes:
      patch: side of a patch in pixels.
      dim, depth, heads, hidden: width, blocks, attention heads and width of the feed-forward networks.
    """

    patch: int
    dim: int
    depth: int
    heads: int
    hidden: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        batch, patches = len(image), ops.block_vectors(image, self.patch)
        patches = patches.reshape(batch, -1, patches.shape[-1])
        x = nn.Dense(self.dim, kernel_init=_kaiming, name="patch_to_embedding")(patches)
        token = self.param("cls_token", nn.initializers.normal(1.0), (1, 1, self.dim))
        x = jnp.concatenate([jnp.broadcast_to(token, (batch, 1, self.dim)), x], axis=1)
        x += self.param("pos_embedding", nn.initializers.normal(1.0), (1, x.shape[1], self.dim))
        for i in range(self.depth):
            x = _Block(self.heads, self.hidden, name=f"layers_{i}")(x)
        return x[:, 1:]


class Restorer(nn.Module):
    """One output capsule of all tokens, and transposed convolutions: `[B, N, dim]` to an image `[B, H, W, 3]` in [-1, 1].

    Routing among capsules has nothing to choose where there is one: it is a linear layer and the "squash" of its result.

    Attributes:
      grid: (height, width) of the decoder's input.
      widths, kernels, strides, paddings: of its transposed convolutions; the last one has three channels.
    """

    grid: tuple[int, int]
    widths: tuple[int, ...]
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    paddings: tuple[int, ...]

    @nn.compact
    def __call__(self, tokens: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        inputs, number = tokens.shape[1] * tokens.shape[2] // CAPSULE, CHANNELS * self.grid[0] * self.grid[1]
        x = capsule(tokens, self.param("capsule", nn.initializers.normal(0.01), (inputs, number, CAPSULE)))
        # the authors' order is (channel, row, column)
        x = jnp.moveaxis(x.reshape(-1, CHANNELS, *self.grid), 1, -1)
        layers = zip((*self.widths, 3), self.kernels, self.strides, self.paddings, strict=True)
        for i, (features, kernel, stride, padding) in enumerate(layers):
            x = ConvTranspose(features, kernel, stride, padding, name=f"decoder2_{3 * i}")(x)
            if i < len(self.widths):
                x = nn.relu(BatchNorm(name=f"decoder2_{3 * i + 1}")(x, valid))
        return jnp.tanh(x)


def capsule(tokens: jax.Array, weights: jax.Array) -> jax.Array:
    """The output capsule `[B, O]`, shorter than 1, of tokens `[B, N, dim]` and weights `[N dim / 8, O, 8]`."""
    s = jnp.einsum("bik,iok->bo", tokens.reshape(len(tokens), -1, CAPSULE), weights)
    squared = jnp.sum(s**2, axis=-1, keepdims=True)
    return s * jnp.sqrt(squared + 1e-12) / (1 + squared)
