"""Encoders and decoders of double convolutions, as DRAEM uses them."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.layers import BatchNorm, Conv

__all__ = ["DiscriminativeDecoder", "Encoder", "ReconstructiveDecoder"]

_conv = functools.partial(Conv, kernel=3, kernel_init=nn.initializers.normal(0.02))


def _scale_init(key, shape, dtype=jnp.float32):
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _unit(x, valid, features, name, position):
    """Convolution, BatchNorm, ReLU; their names hold their positions in a sequence of layers."""
    x = _conv(features, name=f"{name}_{position}")(x)
    return nn.relu(BatchNorm(_scale_init, name=f"{name}_{position + 1}")(x, valid))


def _double(x, valid, first, second, name):
    return _unit(_unit(x, valid, first, name, 0), valid, second, name, 3)


def _up(x, valid, features, name):
    """Twice the size by bilinear interpolation with aligned corners, then a unit."""
    return _unit(ops.resize(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True), valid, features, name, 1)


class Encoder(nn.Module):
    """Double convolutions with 2 x 2 max pooling between them: `[B, H, W, C]` to a list of all outputs, the finest first."""

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x, valid):
        outputs = []
        for i, width in enumerate(self.widths, start=1):
            if i > 1:
                x = ops.block_max(x, 2)
            x = _double(x, valid, width, width, f"block{i}")
            outputs.append(x)
        return outputs


class ReconstructiveDecoder(nn.Module):
    """Doubles the size four times, without skip connections: `[B, h, w, C]` to `[B, 16 h, 16 w, channels]`."""

    width: int
    channels: int

    @nn.compact
    def __call__(self, x, valid):
        for i, (first, second) in enumerate(((8, 4), (4, 2), (2, 1), (1, 1)), start=1):
            x = _up(x, valid, first * self.width, f"up{i}")
            x = _double(x, valid, first * self.width, second * self.width, f"db{i}")
        return _conv(self.channels, name="fin_out_0")(x)


class DiscriminativeDecoder(nn.Module):
    """Doubles the size five times and concatenates the encoder's output of each size (a U-Net)."""

    width: int
    channels: int

    @nn.compact
    def __call__(self, levels, valid):
        *skips, x = levels
        for name, factor in (("b", 8), ("1", 4), ("2", 2), ("3", 1), ("4", 1)):
            up = "up_b" if name == "b" else f"up{name}"
            double = "db_b" if name == "b" else f"db{name}"
            x = _up(x, valid, factor * self.width, up)
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = _double(x, valid, factor * self.width, factor * self.width, double)
        return _conv(self.channels, name="fin_out_0")(x)
