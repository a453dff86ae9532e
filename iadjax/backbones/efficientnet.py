"""EfficientNet (Tan & Le, ICML 2019) with TensorFlow's padding, as its published weights need it; timm's layer names.

TensorFlow's padding depends on the size of each input. Melas-Kyriazi's port for PyTorch pads every layer for an image of one
fixed size, 380 for B4. At 224 this moves its third and fifth stages by half a cell.
"""

import math
import re
from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.backbones.weights import torch_name
from iadjax.cpu.dispatch import by_platform

__all__ = ["SPECS", "EfficientNet", "efficientnet"]

# name: (width, depth) multipliers, side of the image that the padding is computed for (0: the image given), weights
SPECS = {
    "tf_efficientnet_b0": (1.0, 1.0, 0, "timm/tf_efficientnet_b0.aa_in1k"),
    "tf_efficientnet_b4": (1.4, 1.8, 0, "timm/tf_efficientnet_b4.aa_in1k"),
    # UniAD's, with the padding of Melas-Kyriazi's port
    "efficientnet_b4_static": (1.4, 1.8, 380, "timm/tf_efficientnet_b4.aa_in1k"),
    "tf_efficientnet_b5": (1.6, 2.2, 0, "timm/tf_efficientnet_b5.aa_in1k"),
    # CS-Flow's, with the padding of that port
    "efficientnet_b5_static": (1.6, 2.2, 456, "timm/tf_efficientnet_b5.aa_in1k"),
    # torchvision's: an input of odd sides in every stage is padded the same on both sides
    "efficientnet_b5_symmetric": (1.6, 2.2, 65, None),
}

# of B0, table 1 of the paper: (expansion, channels, blocks, stride, kernel)
_STAGES = (
    (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3), (6, 112, 3, 1, 5), (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)  # fmt: skip


def round_channels(channels: int, width: float) -> int:
    """The multiple of 8 that is nearest to `width` x `channels`, but at most 10 % below it."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


def blocks_per_stage(depth: float) -> tuple[int, ...]:
    """How many blocks each of the seven stages has."""
    return tuple(math.ceil(depth * stage[2]) for stage in _STAGES)


def _pads(sides: Sequence[int], kernel: int, stride: int) -> list[tuple[int, int]]:
    """TensorFlow's padding of each side, (before, after): side / stride outputs, rounded up."""
    missing = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in sides]
    return [(each // 2, each - each // 2) for each in missing]


def _conv(features: int, kernel: int, name: str, bias: bool = False) -> nn.Conv:
    return nn.Conv(features, (kernel, kernel), padding="SAME", use_bias=bias, name=name)


def _norm(name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=True, epsilon=1e-3, name=name)


class Depthwise(nn.Module):
    """A convolution of each channel with a kernel of its own.

    Attributes:
      kernel, stride: of both sides.
      planned: side of the input that the padding is computed for; 0: that of the input given.
    """

    kernel: int
    stride: int
    planned: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (self.kernel, self.kernel, 1, x.shape[-1]))
        pads = _pads((self.planned, self.planned) if self.planned else x.shape[1:3], self.kernel, self.stride)

        def grouped(x, kernel):
            return jax.lax.conv_general_dilated(
                x,
                kernel,
                (self.stride, self.stride),
                pads,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=x.shape[-1],
            )

        # the grouped form takes XLA:CPU ten times as long
        return by_platform(x, kernel, cpu=lambda x, kernel: self._shifted(x, kernel, pads), default=grouped)

    def _shifted(self, x, kernel, pads):
        padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        sizes = [(side - self.kernel) // self.stride + 1 for side in padded.shape[1:3]]
        # [k, k, 1, 1, 1, C], for [B, H, W, C]
        kernel = kernel[:, :, None, None]
        total = 0.0
        for i in range(self.kernel):
            for j in range(self.kernel):
                rows = slice(i, i + (sizes[0] - 1) * self.stride + 1, self.stride)
                columns = slice(j, j + (sizes[1] - 1) * self.stride + 1, self.stride)
                total += padded[:, rows, columns] * kernel[i, j]
        return total


class Block(nn.Module):
    """A mobile inverted bottleneck: expand, depthwise, squeeze and excite, project."""

    expansion: int
    channels: int
    kernel: int
    stride: int
    planned: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        depth = x.shape[-1]
        # timm numbers the norms in their order, and the first stage has no expansion
        first = int(self.expansion > 1)
        y = x
        if first:
            y = nn.silu(_norm("bn1")(_conv(self.expansion * depth, 1, "conv_pw")(y)))
        y = nn.silu(_norm(f"bn{1 + first}")(Depthwise(self.kernel, self.stride, self.planned, name="conv_dw")(y)))
        squeezed = jnp.mean(y, axis=(1, 2), keepdims=True)
        squeezed = nn.silu(_conv(max(1, depth // 4), 1, "se_conv_reduce", bias=True)(squeezed))
        y = y * nn.sigmoid(_conv(y.shape[-1], 1, "se_conv_expand", bias=True)(squeezed))
        y = _norm(f"bn{2 + first}")(_conv(self.channels, 1, "conv_pwl" if first else "conv_pw")(y))
        return x + y if self.stride == 1 and depth == self.channels else y


class EfficientNet(nn.Module):
    """Stages of an EfficientNet, up to the last one in `layers`.

    Attributes:
      width, depth: the multipliers, see `SPECS`.
      layers: names to return: "stem", "stage1" ... "stage7", "head" (the last convolution).
      planned: side of the image that the padding is computed for; 0: that of the image given.
    """

    width: float
    depth: float
    layers: tuple[str, ...]
    planned: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        side = self.planned
        pads = _pads((side, side) if side else x.shape[1:3], 3, 2)
        stem = nn.Conv(round_channels(32, self.width), (3, 3), (2, 2), pads, use_bias=False, name="conv_stem")
        x, side = nn.silu(_norm("bn1")(stem(x))), -(-side // 2)
        taps = {"stem": x}
        for stage, count in enumerate(blocks_per_stage(self.depth)):
            if set(self.layers) <= taps.keys():
                break
            expansion, channels, _, stride, kernel = _STAGES[stage]
            for i in range(count):
                step = 1 if i else stride
                features, name = round_channels(channels, self.width), f"blocks_{stage}_{i}"
                x = Block(expansion, features, kernel, step, side, name=name)(x)
                side = -(-side // step)
            taps[f"stage{stage + 1}"] = x
        if "head" in self.layers:
            taps["head"] = nn.silu(_norm("bn2")(_conv(round_channels(1280, self.width), 1, "conv_head")(x)))
        return tuple(taps[name] for name in self.layers)


def efficientnet(name: str) -> Backbone:
    """The backbone `name`, a key of `SPECS`."""
    width, depth, planned, hub = SPECS[name]

    def module(layers: Sequence[str]) -> EfficientNet:
        return EfficientNet(width, depth, check_layers(backbone, layers), planned)

    def init(key, layers):
        return module(layers).init(key, jnp.zeros((1, 64, 64, 3)))

    def features(variables, image, layers):
        return module(layers).apply(variables, normalize(image))

    backbone = Backbone(
        name=name,
        layers=("stem", *(f"stage{i}" for i in range(1, 8)), "head"),
        init=init,
        features=plain_features(features, batch_norm=name),
        weight_name=_weight_name,
        head=r"(conv_head|bn2|classifier)\..*",
        hub=hub,
        rename=lambda tensors: _timm_names(tensors, blocks_per_stage(depth)),
    )
    return backbone


def _weight_name(path: tuple[str, ...]) -> str:
    """("params", "blocks_1_0", "se_conv_reduce", "bias") -> "blocks.1.0.se.conv_reduce.bias"."""
    kind, *modules, leaf = path
    modules = [module.replace("_", ".") if module.startswith("blocks_") else module for module in modules]
    return torch_name((kind, *(module.replace("se_conv", "se.conv") for module in modules), leaf))


def _timm_names(tensors: Mapping[str, np.ndarray], counts: Sequence[int]) -> dict[str, np.ndarray]:
    """A state dict in timm's names, also from those of Melas-Kyriazi's PyTorch port ("_blocks.0._depthwise_conv.weight"), which
    UniAD uses, and of torchvision ("features.1.0.block.0.0.weight")."""
    if "features.0.0.weight" in tensors:
        return {_of_torchvision(name): tensor for name, tensor in tensors.items()}
    if "_conv_stem.weight" not in tensors:
        return dict(tensors)
    positions = [(stage, i) for stage, count in enumerate(counts) for i in range(count)]
    parts = {"_expand_conv": "conv_pw", "_depthwise_conv": "conv_dw", "_se_reduce": "se.conv_reduce"}
    parts |= {"_se_expand": "se.conv_expand", "_project_conv": "conv_pwl"}
    tops = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    renamed = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
        if not found:
            part, _, leaf = name.partition(".")
            renamed[f"{tops.get(part, part)}.{leaf}"] = tensor
            continue
        number, part, leaf = found.groups()
        stage, i = positions[int(number)]
        if part.startswith("_bn"):
            part = f"bn{int(part[3:]) + (1 if stage else 0)}"
        elif part == "_project_conv" and stage == 0:
            part = "conv_pw"
        renamed[f"blocks.{stage}.{i}.{parts.get(part, part)}.{leaf}"] = tensor
    return renamed


def _of_torchvision(name: str) -> str:
    """torchvision's name of a tensor to timm's: "features.2.1.block.3.0.weight" to "blocks.1.1.conv_pwl.weight"."""
    found = re.fullmatch(r"features\.(\d)\.(\d+)\.block\.(\d)\.(\w+)\.(\w+)", name)
    if not found:
        top = re.fullmatch(r"features\.([08])\.([01])\.(\w+)", name)
        names = {("0", "0"): "conv_stem", ("0", "1"): "bn1", ("8", "0"): "conv_head", ("8", "1"): "bn2"}
        return f"{names[top[1], top[2]]}.{top[3]}" if top else name
    stage, i, part, kind, leaf = found.groups()
    expanded = int(stage) > 1
    # without an expansion the list begins with the depthwise convolution
    order = int(part) + (0 if expanded else 1)
    if order == 2:
        part = {"fc1": "se.conv_reduce", "fc2": "se.conv_expand"}[kind]
    else:
        conv = {0: "conv_pw", 1: "conv_dw", 3: "conv_pwl" if expanded else "conv_pw"}[order]
        norm = {0: 1, 1: 1 + expanded, 3: 2 + expanded}[order]
        part = conv if kind == "0" else f"bn{norm}"
    return f"blocks.{int(stage) - 1}.{i}.{part}.{leaf}"
