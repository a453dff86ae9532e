"""NAME: "Title" (Authors, Venue Year, arXiv NUMBER).

What is learned from normal images, in one sentence. What an anomaly does to the score, in another.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gaussian import gaussian
from iadjax.detectors.families.options import check_options

__all__ = ["my_detector"]


def my_detector(
    backbone: Backbone, *, layers: Sequence[str] = ("layer2",), epsilon: float = 0.01, sigma: float = 4.0
) -> Detector:
    """Builds NAME.

    Map: the unit of the map (here: distance in standard deviations of each channel, smoothed).

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: the levels whose features are used.
      epsilon: added to each variance (section and symbol of the paper).
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("(0, inf)", epsilon=epsilon)
    check_options("[0, inf)", sigma=sigma)

    def embed(frozen, image):
        # what training never changes: its results are kept from epoch to epoch
        return ops.concatenate_levels(backbone.features(frozen["backbone"], image, layers))

    def draw(key, spec):
        # random numbers that stay with the model; none here
        del key, spec
        return ()

    def describe(constants, batch):
        del constants
        return batch.features

    def factorize(covariance):
        # once, after all images: 1 / standard deviation of each channel, on the diagonal
        variance = jnp.diagonal(covariance, axis1=1, axis2=2) + epsilon
        return jax.vmap(jnp.diag)(jax.lax.rsqrt(variance))

    def predict(state, frozen, batch):
        del frozen
        rows, height, width, depth = batch.features.shape
        delta = batch.features.reshape(rows, -1, depth) - state.mean[None]
        scaled = jnp.einsum("pij,bpj->bpi", state.factor, delta, precision="highest")
        distance = jnp.linalg.norm(scaled, axis=-1).reshape(rows, height, width)
        maps = ops.anomaly_map(distance, batch.image.shape[1:3], sigma)
        return Prediction(maps.max(axis=(1, 2)), maps)

    return gaussian(draw, embed, describe, factorize, predict)
