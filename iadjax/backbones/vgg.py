"""VGG-16 and VGG-19 (Simonyan & Zisserman, ICLR 2015), with the numbers of torchvision's layers."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.nn.layers import Conv

__all__ = ["SPECS", "STAGES", "VGG", "halved", "vgg"]

# channels and number of the convolutions of each stage
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))

SPECS = {
    "vgg16": (STAGES, False),
    "vgg19": (((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)), False),
    "vgg19_reflect": (((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)), True),
}
"""By name: the stages, and whether images and levels are reflected at their borders, as DFR's code has it."""


def halved(x: jax.Array) -> jax.Array:
    """The largest of every 2 x 2 block of `[B, H, W, C]`; an odd last row or column is left out."""
    return nn.max_pool(x, (2, 2), (2, 2))


class VGG(nn.Module):
    """Layers "relu1_1" ... and "pool1" to "pool5", the ends of the stages, up to the last one in `layers`.

    Attributes:
      layers: what is given.
      stages: channels and number of the convolutions of each stage.
      reflect: a convolution sees its input reflected by one pixel, instead of zeros outside. Layers that a convolution
        follows then have this border, two pixels more, as in DFR's code.
    """

    layers: tuple[str, ...]
    stages: tuple[tuple[int, int], ...] = STAGES
    reflect: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        taps, number = {}, 0
        for stage, (features, count) in enumerate(self.stages, start=1):
            for i in range(1, count + 1):
                x = _reflected(x) if self.reflect else x
                x = nn.relu(Conv(features, padding=0 if self.reflect else 1, name=f"features_{number}")(x))
                taps[f"relu{stage}_{i}"] = _reflected(x) if self.reflect and i < count else x
                number += 2
                if set(self.layers) <= set(taps):
                    return tuple(taps[name] for name in self.layers)
            taps[f"pool{stage}"] = x = halved(x)
            number += 1
        return tuple(taps[name] for name in self.layers)


def _reflected(x: jax.Array) -> jax.Array:
    return jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")


def vgg(name: str) -> Backbone:
    """A VGG without its classifier; `name` is a key of `SPECS`."""
    stages, reflect = SPECS[name]

    def module(layers: Sequence[str]) -> VGG:
        return VGG(check_layers(backbone, layers), stages, reflect)

    def weight_name(path: tuple[str, ...]) -> str:
        _, *modules, leaf = path
        return ".".join([*(name.replace("_", ".") for name in modules), "weight" if leaf == "kernel" else leaf])

    names = [
        [*(f"relu{stage}_{i}" for i in range(1, count + 1)), f"pool{stage}"] for stage, (_, count) in enumerate(stages, start=1)
    ]
    backbone = Backbone(
        name=name,
        layers=tuple(layer for each in names for layer in each),
        init=lambda key, layers: module(layers).init(key, jnp.zeros((1, 32, 32, 3))),
        features=plain_features(lambda variables, image, layers: module(layers).apply(variables, normalize(image))),
        weight_name=weight_name,
        head=r"(classifier|pre_logits|head)\..*",
        hub=f"timm/{name.removesuffix('_reflect')}.tv_in1k",
    )
    return backbone
