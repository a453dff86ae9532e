"""HRNet (Wang et al., TPAMI 2021, arXiv 1908.07919), with the names of Microsoft's code and of timm.

Branches of four resolutions run beside each other and exchange their maps.
"""

import re
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.backbones.backbone import Backbone, batch_norm_features, check_layers
from iadjax.backbones.resnet import Block, conv, norm
from iadjax.backbones.weights import torch_name

__all__ = ["SPECS", "HRNet", "hrnet"]

# name: (channels of the finest branch, bilinear)
SPECS = {
    "hrnet_w18": (18, False),
    "hrnet_w32": (32, False),
    "hrnet_w48": (48, False),
    "hrnet_w18_bilinear": (18, True),
    "hrnet_w32_bilinear": (32, True),
    "hrnet_w48_bilinear": (48, True),
}

_TAGS = {18: "ms_aug_in1k", 32: "ms_in1k", 48: "ms_in1k"}

_BLOCKS = 4


class HRNet(nn.Module):
    """The branches of the last stage.

    Attributes:
      width: channels of the finest branch; each coarser one has twice as many.
      bilinear: coarse maps are enlarged bilinearly with fixed corners, as for segmentation. False: by repetition.
      layers: names to return, of "branch0" (stride 4) to "branch3" (stride 32).
      modules: exchanges in stages 2, 3 and 4.
    """

    width: int
    bilinear: bool
    layers: tuple[str, ...]
    modules: tuple[int, ...] = (1, 4, 3)

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> tuple[jax.Array, ...]:
        def unit(x, features, kernel, stride, name):
            return norm(conv(features, kernel, stride, f"{name}_0")(x), valid, f"{name}_1")

        for i in (1, 2):
            x = nn.relu(norm(conv(64, 3, 2, f"conv{i}")(x), valid, f"bn{i}"))
        for i in range(_BLOCKS):
            x = Block(64, 1, True, 64, i == 0, name=f"layer1_{i}")(x, valid)
        branches = [x]
        for stage, count in enumerate(self.modules, start=2):
            branches = self._begin(branches, f"transition{stage - 1}", unit)
            for i in range(count):
                branches = self._exchange(branches, f"stage{stage}_{i}", valid, unit)
        return tuple(branches[int(layer.removeprefix("branch"))] for layer in self.layers)

    def _begin(self, branches: list[jax.Array], name: str, unit: Callable) -> list[jax.Array]:
        """One branch more, of half the resolution of the coarsest; the first stage has other channels than its branch."""
        last = len(branches)
        first = branches[0]
        if first.shape[-1] != self.width:
            first = nn.relu(unit(first, self.width, 3, 1, f"{name}_0"))
        new = nn.relu(unit(branches[-1], self.width * 2**last, 3, 2, f"{name}_{last}_0"))
        return [first, *branches[1:], new]

    def _exchange(self, branches: list[jax.Array], name: str, valid: jax.Array | None, unit: Callable) -> list[jax.Array]:
        """Four residual blocks on each branch, then each becomes the sum of all, brought to its resolution and channels."""
        ready = []
        for i, x in enumerate(branches):
            for j in range(_BLOCKS):
                x = Block(self.width * 2**i, 1, False, 64, False, name=f"{name}_branches_{i}_{j}")(x, valid)
            ready.append(x)
        fused = []
        for i, target in enumerate(ready):
            total = None
            for j, x in enumerate(ready):
                fuse = f"{name}_fuse_layers_{i}_{j}"
                if j > i:
                    x = self._enlarge(unit(x, target.shape[-1], 1, 1, fuse), target.shape[1:3], 2 ** (j - i))
                for k in range(i - j):
                    end = k == i - j - 1
                    x = unit(x, target.shape[-1] if end else x.shape[-1], 3, 2, f"{fuse}_{k}")
                    x = x if end else nn.relu(x)
                total = x if total is None else total + x
            fused.append(nn.relu(total))
        return fused

    def _enlarge(self, x: jax.Array, size: tuple[int, int], factor: int) -> jax.Array:
        if self.bilinear:
            return ops.resize(x, size, align_corners=True)
        return ops.block_repeat(x, factor)[:, : size[0], : size[1]]


def _weight_name(path: tuple[str, ...]) -> str:
    """`("params", "stage2_0_fuse_layers_0_1_0", "kernel")` -> "stage2.0.fuse_layers.0.1.0.weight"."""
    kind, *modules, leaf = path
    return torch_name((kind, *(re.sub(r"(?<=\d)_|_(?=\d)", ".", module) for module in modules), leaf))


def hrnet(name: str) -> Backbone:
    """The backbone `name`, a key of `SPECS`. Layers: "branch0" to "branch3", of strides 4, 8, 16, 32."""
    width, bilinear = SPECS[name]

    def module(layers: Sequence[str]) -> HRNet:
        return HRNet(width, bilinear, check_layers(backbone, layers))

    def init(key, layers):
        return module(layers).init(key, jnp.zeros((1, 32, 32, 3)))

    backbone = Backbone(
        name=name,
        layers=tuple(f"branch{i}" for i in range(4)),
        init=init,
        features=batch_norm_features(module),
        weight_name=_weight_name,
        # of timm and of Microsoft's segmentation networks
        head=r"(incre_modules|downsamp_modules|final_layer|classifier|last_layer)\..*",
        hub=f"timm/hrnet_w{width}.{_TAGS[width]}",
    )
    return backbone
