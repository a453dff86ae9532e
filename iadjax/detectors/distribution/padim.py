"""PaDiM: "a Patch Distribution Modeling Framework for Anomaly Detection and Localization" (Defard et al., ICPR 2021).

Every position (i, j) of the feature grid has its own Gaussian N(mu_ij, Sigma_ij). The score of a patch is its Mahalanobis
distance (arXiv 2011.08785).
"""

from collections.abc import Sequence

import jax.numpy as jnp

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gaussian import draw_channels, gaussian, mahalanobis, whitening
from iadjax.detectors.families.options import check_options

__all__ = ["padim"]


def padim(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    num_channels: int = 100,
    epsilon: float = 0.01,
    sigma: float = 4.0,
) -> Detector:
    """Builds PaDiM.

    Map: Mahalanobis distance of features, smoothed.

    The state keeps streaming moments, so memory does not grow with the number of images. At the end, one Cholesky
    factorisation per position gives Sigma = L L^T. W = L^-1 is kept, so that M(x) = |W (x - mu)| is one matrix product.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: the levels whose features are concatenated on the grid of the first one (nearest neighbour, as the figures
        of section III-A have it).
      num_channels: Rd, how many of the concatenated channels are kept, drawn once from the seed (section III-C): 100 of
        448 for ResNet-18, 550 of 1792 for Wide ResNet-50-2; 0 keeps all.
      epsilon: of the regulariser epsilon I of eq. 1, which keeps Sigma invertible with fewer images than channels.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[0, inf)", num_channels=num_channels, sigma=sigma)
    check_options("(0, inf)", epsilon=epsilon)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def draw(key, spec):
        return draw_channels(key, spec, num_channels, layers)

    def describe(channels, batch):
        grid = batch.features[0].shape[1:3]
        return jnp.concatenate([ops.resize_nearest(level, grid) for level in batch.features], axis=-1)[..., channels]

    def factorize(covariance):
        # eq. 1: the sample covariance (N - 1 in its denominator) + epsilon I
        return whitening(covariance, epsilon)

    def predict(state, frozen, batch):
        del frozen
        # eq. 2: the square root of the quadratic form
        distance = mahalanobis(state, describe(state.constants, batch))
        maps = ops.anomaly_map(distance, batch.image.shape[1:3], sigma)
        return Prediction(maps.max(axis=(1, 2)), maps)

    return gaussian(draw, embed, describe, factorize, predict)
