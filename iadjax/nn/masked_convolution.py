"""Blocks that predict each position of a feature map from its surroundings: SSPCAB (Ristea et al., CVPR 2022) and SSMCTB (Madan
et al., TPAMI 2023)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.errors import UserError
from iadjax.nn.layers import Conv, linear

__all__ = ["BLOCKS", "MaskedBlock", "masked_block"]

BLOCKS = ("sspcab", "ssmctb")


class MaskedBlock(nn.Module):
    """A convolution whose centre is hidden (SSPCAB, eq. 1-3), then a gate of channels; its output has the shape of its input.

    Four kernels see the corners of a window; between them are the hidden centre and `dilation` positions on each side. Its own
    loss is the mean squared error of output and input (eq. 7 of SSPCAB).

    Attributes:
      kind: "sspcab": squeeze and excitation is the gate; "ssmctb": a transformer over the channels.
      kernel: k', side of the four kernels.
      dilation: d.
      reduction: r, by which squeeze and excitation reduces the channels.
      dimension, heads: of the transformer: numbers of a channel's token, and of each head; heads.
    """

    kind: str
    kernel: int = 1
    dilation: int = 1
    reduction: int = 8
    dimension: int = 64
    heads: int = 5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, C]` to the same shape."""
        depth, pad = x.shape[-1], self.kernel + self.dilation
        padded = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        # the windows of opposite corners begin so many positions apart
        apart = self.kernel + 2 * self.dilation + 1
        first, last = slice(None, -apart), slice(apart, None)
        corners = ((first, first), (last, first), (first, last), (last, last))
        y = sum(
            Conv(depth, self.kernel, padding=0, name=f"conv{i}")(padded[:, rows, columns])
            for i, (rows, columns) in enumerate(corners, start=1)
        )
        y = nn.relu(y)
        gate = self._squeezed(y) if self.kind == "sspcab" else self._attended(y)
        return y * nn.sigmoid(gate)[:, None, None]

    def _squeezed(self, y):
        depth = y.shape[-1]
        hidden = depth // self.reduction
        if not hidden:
            raise UserError(f"sspcab reduces the channels to one in {self.reduction}: it needs as many, got {depth}")
        z = nn.relu(linear(hidden, depth, "se_fc1")(jnp.mean(y, axis=(1, 2))))
        return linear(depth, hidden, "se_fc2")(z)

    def _attended(self, y):
        batch, depth = len(y), y.shape[-1]
        size, heads = self.dimension, self.heads
        # a token for each channel: a multiple of its mean, and its position
        tokens = linear(size, 1, "projection")(jnp.mean(y, axis=(1, 2))[..., None])
        tokens += self.param("pos_embedding", nn.initializers.normal(1.0), (1, depth, size)).astype(y.dtype)
        qkv = linear(3 * heads * size, size, "to_qkv", bias=False)(tokens).reshape(batch, depth, 3, heads, size)
        q, k, v = (qkv[:, :, i] for i in range(3))
        weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q, k) / size**0.5)
        z = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(batch, depth, heads * size)
        return jnp.mean(linear(size, heads * size, "to_out")(z), axis=-1)


def masked_block(kind: str) -> MaskedBlock | None:
    """The block that a detector's option `block` names, with the papers' constants; None for "", a UserError for others."""
    if kind and kind not in BLOCKS:
        raise UserError(f"detector.block must be one of {', '.join(BLOCKS)}, or empty for none; got {kind!r}")
    return MaskedBlock(kind) if kind else None
