"""What every backbone is: named intermediate layers of a frozen network, as pure functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError, did_you_mean
from iadjax.ops import per_channel

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PIXELS",
    "Backbone",
    "batch_norm_features",
    "check_layers",
    "normalize",
    "plain_features",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PIXELS = {
    "imagenet": (IMAGENET_MEAN, IMAGENET_STD),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of the channels, by the data that a network was trained on."""


class Backbone(NamedTuple):
    """A feature extractor.

    Attributes:
      name: its name in configs.
      layers: the names that can be asked for, in the order in which they are computed.
      init: `(key, layers) -> variables`; random variables for everything up to the last of `layers`.
      features: `(variables, image [B, H, W, 3] in [0, 1], layers, train=False, valid=None) -> tuple of [B, h, w, C]`, one for
        each of `layers` ([B, C] for class tokens, [B, R, C] for registers); normalises the image as its weights need it;
        computes no layer above the last one asked for. With `train` it returns `(levels, batch_stats)`: levels normalised by
        the statistics of the rows where `valid [B]` is true (None: of all), and the running ones moved a tenth of the way; {}
        in networks without BatchNorm.
      weight_name: `(path in the variables) -> name in a PyTorch state dict`, or None if there are no weights.
      head: pattern of the names in a state dict that belong to no layer (the classifier).
      hub: the weights used when a config names none (a Hugging Face Hub tag), or None.
      packaged: whether a file of weights comes with iadjax, for a config that names none.
      rename: brings a state dict with other published names into those of `weight_name`.
    """

    name: str
    layers: tuple[str, ...]
    init: Callable[[jax.Array, Sequence[str]], Any]
    features: Callable[..., Any]
    weight_name: Callable[[tuple[str, ...]], str] | None = None
    head: str = ""
    hub: str | None = None
    packaged: bool = False
    rename: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = dict


def check_layers(backbone: Backbone, layers: Sequence[str]) -> tuple[str, ...]:
    """The layers as a tuple; a UserError that lists those that exist if one does not."""
    layers = tuple(layers)
    if not layers:
        raise UserError(f"no layer of {backbone.name} was asked for; valid names: {', '.join(backbone.layers)}")
    for layer in layers:
        if layer not in backbone.layers:
            short = len(backbone.layers) > 40
            known = [name for name in backbone.layers if "." not in name] if short else backbone.layers
            more = ", and those with .norm, .class and the like (docs/backbones.md)" if short else ""
            raise UserError(f"{backbone.name} has no layer {layer!r}; {did_you_mean(layer, known)}{more}")
    return layers


def normalize(image: jax.Array, pixels: str = "imagenet") -> jax.Array:
    """`[B, H, W, 3]` in [0, 1] to zero mean and unit variance by the channel statistics of `PIXELS`."""
    mean, std = (per_channel(jnp.asarray(each, image.dtype), image) for each in PIXELS[pixels])
    return (image - mean) / std


def batch_norm_features(module: Callable) -> Callable:
    """`Backbone.features` of a network whose BatchNorm can be trained.

    Args:
      module: `layers -> Flax module`, called with `(image, valid)`; without `valid` by running statistics.
    """

    def features(variables, image, layers, train=False, valid=None):
        if not train:
            return module(layers).apply(variables, normalize(image))
        valid = jnp.ones(len(image), bool) if valid is None else valid
        levels, changed = module(layers).apply(variables, normalize(image), valid, mutable="batch_stats")
        return levels, changed["batch_stats"]

    return features


def plain_features(features: Callable, batch_norm: str = "") -> Callable:
    """`Backbone.features` from `(variables, image, layers) -> levels`, for networks without BatchNorm.

    Args:
      features: the levels.
      batch_norm: name of a network that has BatchNorm, with running statistics only; training it is a UserError.
    """

    def both(variables, image, layers, train=False, valid=None):
        del valid
        if train and batch_norm:
            raise UserError(
                f"the BatchNorm of {batch_norm} cannot be trained; take a ResNet or an HRNet, or do not train the backbone"
            )
        levels = features(variables, image, layers)
        return (levels, {}) if train else levels

    return both
