"""MKD: "Multiresolution Knowledge Distillation for Anomaly Detection" (Salehi et al., CVPR 2021, arXiv 2011.11108).

A small network, the cloner, learns values and directions of a source network's features at several layers. Their difference
is an image's score, and the gradient of the score by the pixels is its map.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from iadjax.backbones.vgg import STAGES, halved
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm

__all__ = ["mkd"]


@jax.custom_vjp
def guided_relu(x: jax.Array) -> jax.Array:
    """ReLU, whose gradient passes where it is positive (guided back-propagation, Springenberg et al., 2015)."""
    return nn.relu(x)


guided_relu.defvjp(
    lambda x: (nn.relu(x), x > 0), lambda positive, gradient: (jnp.where(positive, jnp.maximum(gradient, 0), 0),)
)


class Cloner(nn.Module):
    """A VGG-16 with few channels; the last convolution of a stage has the source's, and no BatchNorm.

    Attributes:
      channels: of the source's layers, by their stage, from 1.
      width: channels of the other convolutions; 0 for those of VGG-16.
    """

    channels: dict[int, int]
    width: int

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None, guided: bool = False) -> list[jax.Array]:
        relu = guided_relu if guided else nn.relu
        draw = nn.initializers.xavier_uniform()
        levels, number = [], 0
        for stage in range(1, 1 + max(self.channels)):
            channels, count = STAGES[stage - 1]
            width = self.width or channels
            for i in range(count):
                last = i + 1 == count
                features = self.channels.get(stage, width) if last else width
                x = Conv(features, bias=False, kernel_init=draw, name=f"features_{number}")(x)
                if not last:
                    x = BatchNorm(name=f"features_{number + 1}")(x, valid)
                x = relu(x)
                number += 2 if last else 3
            x = halved(x)
            number += 1
            if stage in self.channels:
                levels.append(x)
        return levels


def mkd(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("pool2", "pool3", "pool4", "pool5"),
    num_scored: int = 3,
    width: int = 16,
    value_weight: float = 0.5,
    epochs: int = 601,
    learning_rate: float = 1e-3,
    map_kind: str = "gradients",
    normalize_map: bool = False,
    raw_pixels: bool = True,
    sigma: float = 4.0,
) -> Detector:
    """Builds MKD.

    Map: sum over the colours of the absolute gradient of the score by a pixel, smoothed.

    Args:
      backbone: the source network; its variables are `frozen["backbone"]`; VGG-16 in the paper.
      layers: the critical layers, in the order of their strides, which are powers of 2 up to 32.
      num_scored: how many of the last ones make the score; all of them make the loss.
      width: channels of the cloner's other convolutions; 0 for those of VGG-16, a cloner of equal size.
      value_weight: lambda of eq. 3, of the squared difference of values beside the difference of directions: 1/2 for MVTec AD,
        1/100 elsewhere.
      epochs, learning_rate: of Adam.
      map_kind: "gradients", or "guided": guided back-propagation through the cloner.
      normalize_map: whether the gradients of each image are scaled so that the smallest becomes 0 and the 99th percentile 1, as
        in the authors' code. Then the maps of normal images reach 1 as well.
      raw_pixels: whether the networks see values in [0, 1], as in the authors' code, instead of normalised ones.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: strides that the cloner does
        not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", epochs=epochs)
    check_options(f"[1, {len(layers)}]", num_scored=num_scored)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", width=width, value_weight=value_weight, sigma=sigma)
    if map_kind not in ("gradients", "guided"):
        raise UserError(f"detector.map_kind must be 'gradients' or 'guided', got {map_kind!r}")
    mean, std = (np.array(each, np.float32)[None, None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))

    def embed(frozen, image):
        # backbones normalise their input, so raw values are given as what is normalised to them
        return backbone.features(frozen["backbone"], image * std + mean if raw_pixels else image, layers)

    def cloner(features, size):
        stages = [round(size[0] / level.shape[1]).bit_length() - 1 for level in features]
        channels = {stage: level.shape[-1] for stage, level in zip(stages, features, strict=True)}
        grids = [(size[0] >> stage, size[1] >> stage) for stage in stages]
        found = [level.shape[1:3] for level in features]
        if sorted(channels) != stages or not 1 <= min(stages) <= max(stages) <= 5 or grids != found:
            raise UserError(
                f"mkd needs layers of rising strides 2 to 32 that divide the image, got the grids {found} of {size}"
            )
        return Cloner(channels, width)

    def imitate(variables, features, image, *args, **options):
        pixels = image if raw_pixels else (image - mean) / std
        return cloner(features, image.shape[1:3]).apply(variables, pixels, *args, **options)

    def differences(features, imitated):
        """The sum over the layers, `[B]` (eq. 1-3)."""
        pairs = list(zip(features, imitated, strict=True))
        return sum(losses.cosine_distance(s, c) + value_weight * losses.mse(s, c) for s, c in pairs)

    def init_variables(key, frozen, spec):
        del frozen
        return cloner(spec.features, spec.image_shape[:2]).init(key, jnp.zeros((1, *spec.image_shape)))

    def loss(key, variables, frozen, batch):
        del key, frozen
        imitated, changed = imitate(variables, batch.features, batch.image, batch.valid, mutable="batch_stats")
        return losses.mean(differences(batch.features, imitated), batch.valid), (changed, {})

    def predict(variables, frozen, batch):
        def total(image):
            features = embed(frozen, image)
            imitated = imitate(variables, features, image, guided=map_kind == "guided")
            score = differences(features[-num_scored:], imitated[-num_scored:])
            # the sum, because no score depends on another image
            return jnp.sum(score), score

        slope, score = jax.grad(total, has_aux=True)(batch.image)
        maps = jnp.sum(jnp.abs(slope), axis=-1)
        if normalize_map:
            low = jnp.min(maps, axis=(1, 2), keepdims=True)
            high = jnp.percentile(maps.reshape(len(maps), -1), 99, axis=1)[:, None, None]
            maps = jnp.clip((maps - low) / jnp.maximum(high - low, 1e-30), 0, 1)
        return Prediction(score, ops.gaussian_blur(maps, sigma) if sigma else maps)

    def optimizer(spec):
        del spec
        return optax.adam(learning_rate)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs, needs_image=True)
