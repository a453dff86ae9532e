"""AlexNet (Krizhevsky, 2014, arXiv 1404.5997: one weird trick), with torchvision's layer names."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.nn.layers import max_pool

__all__ = ["AlexNet", "alexnet"]

# index in torchvision's `features`: (channels, kernel, stride, padding) of a convolution; those behind it are ReLUs
_CONVOLUTIONS = {0: (64, 11, 4, 2), 3: (192, 5, 1, 2), 6: (384, 3, 1, 1), 8: (256, 3, 1, 1), 10: (256, 3, 1, 1)}
_POOLS = (2, 5, 12)


class AlexNet(nn.Module):
    """Layers "features.0" (convolution), "features.1" (ReLU) ... "features.12" (pooling), up to the last one in `layers`."""

    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, ...]:
        taps = {}
        for i in range(1 + max(int(name.split(".")[1]) for name in self.layers)):
            if i in _CONVOLUTIONS:
                channels, kernel, stride, pad = _CONVOLUTIONS[i]
                x = nn.Conv(channels, (kernel, kernel), (stride, stride), ((pad, pad), (pad, pad)), name=f"features_{i}")(x)
            elif i in _POOLS:
                x = max_pool(x, [(0, 0), (0, 0)])
            else:
                x = nn.relu(x)
            taps[f"features.{i}"] = x
        return tuple(taps[name] for name in self.layers)


def alexnet() -> Backbone:
    """AlexNet; its weights come from a file (torchvision's parameter names)."""

    def module(layers) -> AlexNet:
        return AlexNet(check_layers(backbone, layers))

    def weight_name(path: tuple[str, ...]) -> str:
        _, module, leaf = path
        return f"{module.replace('_', '.')}.{'weight' if leaf == 'kernel' else leaf}"

    backbone = Backbone(
        name="alexnet",
        layers=tuple(f"features.{i}" for i in range(13)),
        init=lambda key, layers: module(layers).init(key, jnp.zeros((1, 64, 64, 3))),
        features=plain_features(lambda variables, image, layers: module(layers).apply(variables, normalize(image))),
        weight_name=weight_name,
        head=r"classifier\..*",
    )
    return backbone
