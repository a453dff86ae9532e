"""ResNet (He et al., CVPR 2016) and Wide ResNet (Zagoruyko & Komodakis, BMVC 2016), with torchvision's layer names.

As in torchvision, the 3x3 convolution of a bottleneck has the stride ("v1.5").
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.backbones.backbone import Backbone, batch_norm_features, check_layers
from iadjax.backbones.weights import torch_name
from iadjax.nn.layers import Conv, max_pool
from iadjax.nn.norms import BatchNorm

__all__ = ["SPECS", "Block", "ResNet", "conv", "norm", "resnet"]

# name: (bottleneck, blocks per stage, width per group)
SPECS = {
    "resnet18": (False, (2, 2, 2, 2), 64),
    "resnet34": (False, (3, 4, 6, 3), 64),
    "resnet50": (True, (3, 4, 6, 3), 64),
    "resnet101": (True, (3, 4, 23, 3), 64),
    "resnet152": (True, (3, 8, 36, 3), 64),
    "wide_resnet50_2": (True, (3, 4, 6, 3), 128),
    "wide_resnet101_2": (True, (3, 4, 23, 3), 128),
}


def conv(features: int, kernel: int, stride: int, name: str) -> Conv:
    """A convolution without a bias; BatchNorm follows, so that the scale of its first weights does not matter."""
    return Conv(features, kernel, stride, bias=False, kernel_init=nn.initializers.lecun_normal(), name=name)


def norm(x: jax.Array, valid: jax.Array | None, name: str) -> jax.Array:
    """By running statistics; or by those of the rows where `valid [B]` is true, which also update the running ones."""
    if valid is None:
        return nn.BatchNorm(use_running_average=True, epsilon=1e-5, name=name)(x)
    return BatchNorm(name=name)(x, valid)


class Block(nn.Module):
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the channels at the end."""

    planes: int
    stride: int
    bottleneck: bool
    width_per_group: int
    downsample: bool

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        if self.bottleneck:
            width = self.planes * self.width_per_group // 64
            convs = [(width, 1, 1), (width, 3, self.stride), (4 * self.planes, 1, 1)]
        else:
            convs = [(self.planes, 3, self.stride), (self.planes, 3, 1)]
        y = x
        for i, (features, kernel, stride) in enumerate(convs, start=1):
            y = norm(conv(features, kernel, stride, f"conv{i}")(y), valid, f"bn{i}")
            if i < len(convs):
                y = nn.relu(y)
        if self.downsample:
            x = norm(conv(convs[-1][0], 1, self.stride, "downsample_0")(x), valid, "downsample_1")
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Layers of a ResNet, up to the last one in `layers`.

    Attributes:
      bottleneck, blocks, width_per_group: the architecture, see `SPECS`.
      layers: names to return: "relu" (stem), "maxpool", "layer1" ... "layer4", "layer1.0" ...
    """

    bottleneck: bool
    blocks: tuple[int, ...]
    width_per_group: int
    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> tuple[jax.Array, ...]:
        taps = {}
        wanted = set(self.layers)
        x = nn.relu(norm(conv(64, 7, 2, "conv1")(x), valid, "bn1"))
        taps["relu"] = x
        if wanted <= taps.keys():
            return tuple(taps[name] for name in self.layers)
        x = max_pool(x, ((1, 1), (1, 1)))
        taps["maxpool"] = x
        for stage, count in enumerate(self.blocks, start=1):
            planes = 64 * 2 ** (stage - 1)
            for i in range(count):
                if wanted <= taps.keys():
                    break
                stride = 2 if stage > 1 and i == 0 else 1
                downsample = i == 0 and (self.bottleneck or stage > 1)
                block = Block(planes, stride, self.bottleneck, self.width_per_group, downsample, name=f"layer{stage}_{i}")
                x = block(x, valid)
                taps[f"layer{stage}.{i}"] = x
                if i == count - 1:
                    taps[f"layer{stage}"] = x
        return tuple(taps[name] for name in self.layers)


def resnet(name: str) -> Backbone:
    """The backbone `name`, a key of `SPECS`."""
    bottleneck, blocks, width_per_group = SPECS[name]
    stages = tuple(
        layer
        for stage, count in enumerate(blocks, start=1)
        for layer in (*(f"layer{stage}.{i}" for i in range(count)), f"layer{stage}")
    )

    def module(layers: Sequence[str]) -> ResNet:
        return ResNet(bottleneck, blocks, width_per_group, check_layers(backbone, layers))

    def init(key, layers):
        return module(layers).init(key, jnp.zeros((1, 32, 32, 3)))

    backbone = Backbone(
        name=name,
        layers=("relu", "maxpool", *stages),
        init=init,
        features=batch_norm_features(module),
        weight_name=torch_name,
        head=r"fc\.(weight|bias)",
        hub=f"timm/{name}.tv_in1k",
    )
    return backbone
