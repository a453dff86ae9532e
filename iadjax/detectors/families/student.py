"""Students that have the stages of a ResNet, whatever network teaches them."""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.backbones import Backbone
from iadjax.backbones.backbone import normalize
from iadjax.backbones.hrnet import SPECS as HRNETS
from iadjax.backbones.resnet import SPECS
from iadjax.detector import Batch, DataSpec
from iadjax.errors import UserError
from iadjax.nn.layers import Conv
from iadjax.nn.residual import Pyramid

__all__ = ["Student", "init_student", "init_twin", "student", "twin_levels"]


class Student(nn.Module):
    """Levels of a ResNet; where the teacher is another network, a convolution of kernel 1 gives each its channels.

    Attributes:
      stages: of the levels that are returned, from 1.
      channels: of each, or () for those of the network.
      blocks, bottleneck, group: of the ResNet, see `backbones.resnet.SPECS`.
      width: channels of its first stage, before the factor 4 of bottleneck blocks.
    """

    stages: Sequence[int]
    channels: Sequence[int]
    blocks: Sequence[int]
    bottleneck: bool
    group: int
    width: int

    @nn.compact
    def __call__(self, image: jax.Array, valid: jax.Array | None = None) -> list[jax.Array]:
        last = max(self.stages)
        features = [self.width * 2**stage * (4 if self.bottleneck else 1) for stage in range(last)]
        inner = self.group * self.width // 64 if self.bottleneck else 0
        levels = Pyramid(features, self.blocks[:last], inner, self.width, name="resnet")(normalize(image), valid)
        levels = [levels[stage - 1] for stage in self.stages]
        if not self.channels:
            return levels
        return [
            Conv(depth, 1, name=f"head{stage}")(x) for depth, stage, x in zip(self.channels, self.stages, levels, strict=True)
        ]


def student(teacher: str, width: int, features: Sequence[Any], size: tuple[int, int]) -> Student:
    """The student of the network called `teacher`.

    Args:
      teacher: a ResNet teaches its like. The student of other networks has the stages of a ResNet-18, and a convolution of
        kernel 1 to the teacher's channels of each level.
      width: channels of the first stage; 64 in every ResNet.
      features: the teacher's levels, `[B, h, w, C]`, or their shapes and dtypes.
      size: height and width of the image.
    """
    stages = tuple(round(size[0] / level.shape[1]).bit_length() - 2 for level in features)
    same = teacher in SPECS and width == 64
    bottleneck, blocks, group = SPECS[teacher] if same else (False, (2, 2, 2, 2), 64)
    return Student(stages, () if same else tuple(level.shape[-1] for level in features), blocks, bottleneck, group, width)


def init_student(key: jax.Array, teacher: str, width: int, spec: DataSpec, name: str) -> dict[str, Any]:
    """Variables of `student`; raises UserError with the detector's `name` where no stage has the grid of a level."""
    network = student(teacher, width, spec.features, spec.image_shape[:2])
    image = jnp.zeros((1, *spec.image_shape))
    grids = [level.shape[1:3] for level in spec.features]
    if not all(1 <= stage <= 4 for stage in network.stages):
        raise UserError(
            f"{name} needs levels of strides 4, 8, 16 or 32, got the grids {grids} of {spec.image_shape[:2]} pixels"
        )
    variables = network.init(key, image)
    found = [level.shape[1:3] for level in jax.eval_shape(network.apply, variables, image)]
    if found != grids:
        raise UserError(f"{name}'s student has the grids {found}, the teacher {grids}; set data.resize to a multiple of 32")
    return variables


def init_twin(
    key: jax.Array, backbone: Backbone, layers: Sequence[str], width: int, spec: DataSpec, name: str
) -> dict[str, Any]:
    """Variables of a student like its teacher: an HRNet's is that network, with new weights; others' is `student`."""
    return backbone.init(key, layers) if backbone.name in HRNETS else init_student(key, backbone.name, width, spec, name)


def twin_levels(
    backbone: Backbone,
    layers: Sequence[str],
    width: int,
    variables: Mapping[str, Any],
    batch: Batch,
    valid: jax.Array | None = None,
) -> tuple[Sequence[jax.Array], dict[str, Any]]:
    """The levels of the student of `init_twin`, and its changed statistics.

    Args:
      backbone, layers, width: as in `init_twin`.
      variables: of the student, among others.
      batch: its image, and the teacher's levels, of which only the shapes matter.
      valid: `[B]`, the rows that give the statistics in training; None: the running ones normalise, and none change.
    """
    variables = {name: variables[name] for name in ("params", "batch_stats")}
    if backbone.name in HRNETS and valid is None:
        return backbone.features(variables, batch.image, layers), {}
    if backbone.name in HRNETS:
        levels, statistics = backbone.features(variables, batch.image, layers, train=True, valid=valid)
        return levels, {"batch_stats": statistics}
    network = student(backbone.name, width, batch.features, batch.image.shape[1:3])
    if valid is None:
        return network.apply(variables, batch.image), {}
    return network.apply(variables, batch.image, valid, mutable="batch_stats")
