"""VGG-16 (Simonyan & Zisserman, ICLR 2015), with the numbers of torchvision's layers."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.nn.layers import Conv

__all__ = ["STAGES", "VGG", "halved", "vgg16"]

# channels and number of the convolutions of each stage
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def halved(x: jax.Array) -> jax.Array:
    """The largest of every 2 x 2 block of `[B, H, W, C]`; an odd last row or column is left out."""
    return nn.max_pool(x, (2, 2), (2, 2))


class VGG(nn.Module):
    """Layers "pool1" to "pool5", the ends of the stages, up to the last one in `layers`."""

    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        taps, number = {}, 0
        for stage in range(1, 1 + max(int(name.removeprefix("pool")) for name in self.layers)):
            features, count = STAGES[stage - 1]
            for _ in range(count):
                x = nn.relu(Conv(features, name=f"features_{number}")(x))
                number += 2
            x = halved(x)
            number += 1
            taps[f"pool{stage}"] = x
        return tuple(taps[name] for name in self.layers)


def vgg16() -> Backbone:
    """VGG-16 without its classifier."""

    def module(layers: Sequence[str]) -> VGG:
        return VGG(check_layers(backbone, layers))

    def weight_name(path: tuple[str, ...]) -> str:
        _, *modules, leaf = path
        return ".".join([*(name.replace("_", ".") for name in modules), "weight" if leaf == "kernel" else leaf])

    backbone = Backbone(
        name="vgg16",
        layers=tuple(f"pool{stage}" for stage in range(1, 6)),
        init=lambda key, layers: module(layers).init(key, jnp.zeros((1, 32, 32, 3))),
        features=plain_features(lambda variables, image, layers: module(layers).apply(variables, normalize(image))),
        weight_name=weight_name,
        head=r"(classifier|pre_logits|head)\..*",
        hub="timm/vgg16.tv_in1k",
    )
    return backbone
