"""SqueezeNet 1.1 (Iandola et al., 2016), with torchvision's layer names."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.nn.layers import max_pool

__all__ = ["SqueezeNet", "squeezenet1_1"]

# index in torchvision's `features`: (squeeze channels, expand channels) of a Fire module; None is a pooling layer
_FIRES = {
    3: (16, 64),
    4: (16, 64),
    6: (32, 128),
    7: (32, 128),
    9: (48, 192),
    10: (48, 192),
    11: (64, 256),
    12: (64, 256),
}
_POOLS = (2, 5, 8)


def _max_pool(x: jax.Array) -> jax.Array:
    # PyTorch's ceil mode: a last window that starts inside the image counts
    return max_pool(x, [(0, (-(size - 3)) % 2) for size in x.shape[1:3]])


class Fire(nn.Module):
    """1x1 squeeze, then 1x1 and 3x3 expand side by side."""

    squeeze: int
    expand: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu(nn.Conv(self.squeeze, (1, 1), name="squeeze")(x))
        small = nn.Conv(self.expand, (1, 1), name="expand1x1")(x)
        large = nn.Conv(self.expand, (3, 3), padding=((1, 1), (1, 1)), name="expand3x3")(x)
        return nn.relu(jnp.concatenate([small, large], axis=-1))


class SqueezeNet(nn.Module):
    """Layers "features.0" (convolution), "features.1" (ReLU) ... "features.12", up to the last one in `layers`."""

    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        taps = {}
        for i in range(1 + max(int(name.split(".")[1]) for name in self.layers)):
            if i == 0:
                x = nn.Conv(64, (3, 3), strides=(2, 2), padding="VALID", name="features_0")(x)
            elif i == 1:
                x = nn.relu(x)
            elif i in _POOLS:
                x = _max_pool(x)
            else:
                x = Fire(*_FIRES[i], name=f"features_{i}")(x)
            taps[f"features.{i}"] = x
        return tuple(taps[name] for name in self.layers)


def squeezenet1_1() -> Backbone:
    """SqueezeNet 1.1; its weights come from a file (torchvision's parameter names)."""

    def module(layers) -> SqueezeNet:
        return SqueezeNet(check_layers(backbone, layers))

    def weight_name(path: tuple[str, ...]) -> str:
        _, *modules, leaf = path
        return ".".join([*(name.replace("_", ".") for name in modules), "weight" if leaf == "kernel" else leaf])

    backbone = Backbone(
        name="squeezenet1_1",
        layers=tuple(f"features.{i}" for i in range(13)),
        init=lambda key, layers: module(layers).init(key, jnp.zeros((1, 64, 64, 3))),
        features=plain_features(lambda variables, image, layers: module(layers).apply(variables, normalize(image))),
        weight_name=weight_name,
        head=r"classifier\..*",
    )
    return backbone
