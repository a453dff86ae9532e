"""Reverse distillation: the one-class bottleneck and the decoder of RD4AD, and what is built on them."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import ops
from iadjax.backbones import Backbone
from iadjax.backbones.resnet import SPECS
from iadjax.errors import UserError
from iadjax.nn.norms import BatchNorm
from iadjax.nn.residual import Block, SplitBlock, conv

__all__ = ["Student", "cosine_map", "reverse_student"]


class Bottleneck(nn.Module):
    """phi: multi-scale feature fusion, then one-class embedding (section 3.3): a ResNet stage of stride 2."""

    channels: tuple[int, int, int]
    blocks: int
    width: int
    split: bool

    @nn.compact
    def __call__(self, features, valid):
        c1, c2, c3 = features
        _, second, third = self.channels
        c1 = nn.relu(BatchNorm(name="bn1")(conv(second, 3, 2, "conv1")(c1), valid))
        c1 = nn.relu(BatchNorm(name="bn2")(conv(third, 3, 2, "conv2")(c1), valid))
        c2 = nn.relu(BatchNorm(name="bn3")(conv(third, 3, 2, "conv3")(c2), valid))
        x = jnp.concatenate([c1, c2, c3], axis=-1)
        width = self.width and 8 * self.width
        for i in range(self.blocks):
            stride, first, name = 1 if i else 2, i == 0, f"bn_layer_{i}"
            if self.split:
                # a basic block does not narrow
                x = SplitBlock(2 * third, width or 2 * third, stride, first, name=name)(x, valid)
            else:
                x = Block(2 * third, width, stride, False, first, name=name)(x, valid)
        return x


class Decoder(nn.Module):
    """D: three stages that double the grid; each restores the features of one level, the deepest first."""

    channels: tuple[int, int, int]
    blocks: tuple[int, ...]
    width: int

    @nn.compact
    def __call__(self, x, valid):
        levels = []
        for stage, (features, count) in enumerate(zip(self.channels[::-1], self.blocks, strict=False), start=1):
            width = self.width and self.width * 2 ** (3 - stage)
            for i in range(count):
                x = Block(features, width, 1 if i else 2, True, i == 0, name=f"layer{stage}_{i}")(x, valid)
            levels.insert(0, x)
        return tuple(levels)


class Student(nn.Module):
    """D(phi(features)), with the names of the authors' code.

    Attributes:
      channels: of the three levels.
      blocks: of the decoder's stages, and of the bottleneck.
      width: channels inside a bottleneck block of the first stage; 0 for basic blocks.
      split: whether phi has blocks of two branches, as UniNet has them.
    """

    channels: tuple[int, int, int]
    blocks: tuple[int, ...]
    width: int
    split: bool = False

    @nn.compact
    def __call__(self, features, valid=None):
        embedding = Bottleneck(self.channels, self.blocks[3], self.width, self.split, name="bn")(features, valid)
        return Decoder(self.channels, self.blocks, self.width, name="decoder")(embedding, valid)


def reverse_student(backbone: Backbone, features: Sequence[jax.Array], split: bool = False) -> Student:
    """The student of a teacher: blocks like those of a ResNet, two basic ones a stage for other networks.

    Args:
      backbone: the teacher.
      features: its three levels `[B, h, w, C]`, of which only the shapes matter.
      split: see `Student`.

    Raises:
      UserError: grids that the student does not restore.
    """
    sizes = [level.shape[1:3] for level in features]
    if any(
        size[0] % 2 ** (3 - i) or size != (4 // 2**i * sizes[2][0], 4 // 2**i * sizes[2][1]) for i, size in enumerate(sizes)
    ):
        raise UserError(
            f"the student needs three grids that halve to an even one, got {sizes}; set data.resize to a multiple of 32"
        )
    bottleneck, blocks, per_group = SPECS.get(backbone.name, (False, (2, 2, 2, 2), 64))
    return Student(tuple(level.shape[-1] for level in features), blocks, per_group if bottleneck else 0, split)


def cosine_map(features: Sequence[jax.Array], restored: Sequence[jax.Array], size: tuple[int, int], sigma: float) -> jax.Array:
    """RD4AD's map `[B, H, W]` (eq. 1 and section 3.4): cosine distances per position, enlarged and summed over the levels.

    Args:
      features, restored: levels `[B, h, w, C]`.
      size: (height, width) of the map.
      sigma: of the Gaussian that smooths the map; 0: not smoothed.
    """
    maps = jnp.zeros((len(features[0]), *size))
    for e, d in zip(features, restored, strict=True):
        distance = optax.losses.cosine_distance(e, d, axis=-1, epsilon=1e-16)
        maps += ops.anomaly_map(distance, size, align_corners=True)
    return ops.gaussian_blur(maps, sigma) if sigma else maps
