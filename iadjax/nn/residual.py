"""Residual networks whose weights are trained from scratch: students and decoders."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.nn.layers import Conv, ConvTranspose2x2, max_pool
from iadjax.nn.norms import BatchNorm

__all__ = ["Block", "Pyramid", "SplitBlock", "conv"]

_kaiming = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def conv(features: int, kernel: int, stride: int, name: str) -> Conv:
    """A convolution without a bias, drawn by Kaiming's rule, as torchvision's ResNets have them."""
    return Conv(features, kernel, stride, bias=False, kernel_init=_kaiming, name=name)


def _deconv(features: int, name: str) -> ConvTranspose2x2:
    # PyTorch's default, as in RD4AD's code
    return ConvTranspose2x2(features, name=name)


class Block(nn.Module):
    """A residual block whose strided convolution halves the grid (phi), or doubles it by a transposed one (D).

    Attributes:
      features: channels of the output.
      width: channels inside a bottleneck block (1x1, 3x3, 1x1); 0 for a basic one (3x3, 3x3).
      stride: 1 or 2.
      up: double the grid instead of halving it.
      shortcut: whether the identity is projected.
    """

    features: int
    width: int
    stride: int
    up: bool
    shortcut: bool

    @nn.compact
    def __call__(self, x, valid):
        def strided(features, kernel, name):
            up = self.up and self.stride == 2
            return _deconv(features, name) if up else conv(features, kernel, self.stride, name)

        def norm(y, name):
            return BatchNorm(name=name)(y, valid)

        if self.width:
            y = nn.relu(norm(conv(self.width, 1, 1, "conv1")(x), "bn1"))
            y = nn.relu(norm(strided(self.width, 3, "conv2")(y), "bn2"))
            y = norm(conv(self.features, 1, 1, "conv3")(y), "bn3")
        else:
            y = nn.relu(norm(strided(self.features, 3, "conv1")(x), "bn1"))
            y = norm(conv(self.features, 3, 1, "conv2")(y), "bn2")
        if self.shortcut:
            name = "upsample" if self.up else "downsample"
            x = norm(strided(self.features, 1, f"{name}_0")(x), f"{name}_1")
        return nn.relu(x + y)


class SplitBlock(nn.Module):
    """A residual block in which each half of the channels has two 3x3 convolutions of its own (UniNet, Wei et al., CVPR 2025).

    The convolutions of the second half have biases.

    Attributes:
      features: channels of the output.
      width: channels of both halves together before the last convolution, of kernel 1.
      stride: 1 or 2: of the first convolution of each half.
      shortcut: whether the identity is projected.
    """

    features: int
    width: int
    stride: int
    shortcut: bool

    @nn.compact
    def __call__(self, x, valid):
        middle, branches = x.shape[-1] // 2, []
        for i, y in enumerate((x[..., :middle], x[..., middle:])):
            for step, stride in enumerate((self.stride, 1), start=1):
                y = nn.relu(y) if step == 2 else y
                options = {"kernel_init": _kaiming, "bias_init": nn.initializers.zeros}
                y = Conv(self.width // 2, 3, stride, bias=i == 1, **options, name=f"branch{i}_conv{step}")(y)
                y = BatchNorm(name=f"branch{i}_bn{step}")(y, valid)
            branches.append(y)
        y = conv(self.features, 1, 1, "conv3")(jnp.concatenate(branches, axis=-1))
        y = BatchNorm(name="bn3")(y, valid)
        if self.shortcut:
            x = BatchNorm(name="downsample_1")(conv(self.features, 1, self.stride, "downsample_0")(x), valid)
        return nn.relu(x + y)


class Pyramid(nn.Module):
    """A ResNet (He et al., CVPR 2016) with torchvision's names: a stem of stride 4, then stages that halve the grid.

    Attributes:
      features: channels of the output of each stage.
      blocks: their residual blocks.
      width: channels inside a bottleneck block of the first stage; 0 for basic blocks.
      stem: channels of the stem.
    """

    features: Sequence[int]
    blocks: Sequence[int]
    width: int = 0
    stem: int = 64

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """The output of every stage for `[B, H, W, 3]`; `valid` as that of `BatchNorm`."""
        x = nn.relu(BatchNorm(name="bn1")(conv(self.stem, 7, 2, "conv1")(x), valid))
        x = max_pool(x, ((1, 1), (1, 1)))
        levels = []
        for stage, (features, count) in enumerate(zip(self.features, self.blocks, strict=True)):
            for i in range(count):
                stride = 2 if stage and i == 0 else 1
                shortcut = stride == 2 or x.shape[-1] != features
                x = Block(features, self.width * 2**stage, stride, False, shortcut, name=f"layer{stage + 1}_{i}")(x, valid)
            levels.append(x)
        return tuple(levels)
