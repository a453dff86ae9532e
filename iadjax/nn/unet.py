"""Encoders and decoders of double convolutions, as DRAEM and DSR use them."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.layers import Conv, uniform_fan_in
from iadjax.nn.norms import BatchNorm, instance_norm

__all__ = [
    "FACTORS",
    "DiscriminativeDecoder",
    "Encoder",
    "InstanceUNet",
    "ReconstructiveDecoder",
    "discriminative_widths",
    "instance_unit",
    "reconstructive_widths",
]

FACTORS = (1, 2, 4, 4)
"""Channels of the blocks of `InstanceUNet`'s encoder, as multiples of the first one's."""

# of DRAEM's two encoders: channels of the blocks, as multiples of the first one's
_RECONSTRUCTIVE, _DISCRIMINATIVE = (1, 2, 4, 8, 8), (1, 2, 4, 8, 8, 8)
# of its two decoders, for each doubling of the size: channels of its first and second half; name and channels
_RECONSTRUCTIVE_UP = ((8, 4), (4, 2), (2, 1), (1, 1))
_DISCRIMINATIVE_UP = (("_b", 8), ("1", 4), ("2", 2), ("3", 1), ("4", 1))

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


def reconstructive_widths(width: int) -> tuple[int, ...]:
    """Channels of the blocks of the reconstructive sub-network's `Encoder`; the first has `width`."""
    return tuple(factor * width for factor in _RECONSTRUCTIVE)


def discriminative_widths(width: int) -> tuple[int, ...]:
    """The same of the discriminative one's."""
    return tuple(factor * width for factor in _DISCRIMINATIVE)


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
        for i, (first, second) in enumerate(_RECONSTRUCTIVE_UP, start=1):
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
        for name, factor in _DISCRIMINATIVE_UP:
            x = _up(x, valid, factor * self.width, f"up{name}")
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = _double(x, valid, factor * self.width, factor * self.width, f"db{name}")
        return _conv(self.channels, name="fin_out_0")(x)


def instance_unit(x: jax.Array, features: int, name: str, init: Callable = uniform_fan_in) -> jax.Array:
    """A 3 x 3 convolution, instance normalisation, ReLU; `init` draws the kernel."""
    return nn.relu(instance_norm(Conv(features, kernel_init=init, name=name)(x)))


def _instance_double(x, features, name, init):
    return instance_unit(instance_unit(x, features, f"{name}_0", init), features, f"{name}_3", init)


class InstanceUNet(nn.Module):
    """A U-Net of double convolutions with instance normalisation (DSR, Zavrtanik et al., ECCV 2022), with its code's names.

    Attributes:
      width: channels of the first block.
      channels: of the output.
      factors: channels of the encoder's blocks as multiples of the width; each block but the first has half the grid.
      skips: whether the decoder sees the encoder's outputs.
      kernel_init: draws the kernels.
    """

    width: int
    channels: int
    factors: tuple[int, ...] = FACTORS
    skips: bool = True
    kernel_init: Callable = uniform_fan_in

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H, W, channels]`; H and W are multiples of 2^(number of factors - 1)."""

        double = functools.partial(_instance_double, init=self.kernel_init)
        widths, levels = [factor * self.width for factor in self.factors], []
        for i, features in enumerate(widths, start=1):
            x = double(ops.block_max(x, 2) if i > 1 else x, features, f"encoder_block{i}")
            levels.append(x)
        levels.pop()
        # the authors number the decoder's blocks so that the last one is 3
        for i, features in enumerate(widths[-2::-1], start=5 - len(widths)):
            x = ops.resize(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
            x = instance_unit(x, features, f"decoder_up{i}_1", self.kernel_init)
            skip = [levels.pop()] if self.skips else []
            x = double(jnp.concatenate([x, *skip], axis=-1), features, f"decoder_db{i}")
        return Conv(self.channels, kernel_init=self.kernel_init, name="decoder_fin_out_0")(x)
