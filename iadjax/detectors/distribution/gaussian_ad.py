"""Gaussian-AD: "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly Detection" (Rippel et al.,
ICPR 2020, arXiv 2005.14140).

The means over positions of a network's levels are vectors of an image. One Gaussian is fitted to each level's vectors of normal
images. The score of an image is the sum of its Mahalanobis distances.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.rows import init_rows, rows_of, rows_phase
from iadjax.detectors.families.shrinkage import ledoit_wolf
from iadjax.errors import UserError

__all__ = ["Gaussians", "gaussian_ad"]


class Gaussians(NamedTuple):
    """What predicts.

    Attributes:
      means: `[D]` of each level.
      factors: `[k, D]` of each level: |W (x - mean)| is the Mahalanobis distance.
    """

    means: tuple[jax.Array, ...]
    factors: tuple[jax.Array, ...]


def gaussian_ad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("stem", "stage1", "stage2", "stage3", "stage4", "stage5", "stage6", "stage7", "head"),
    reduce: str = "none",
    variance: float = 0.99,
) -> Detector:
    """Builds Gaussian-AD.

    Map: none, the score is of the whole image.

    Args:
      backbone: frozen network, EfficientNet-B4 in the paper; its variables are `frozen["backbone"]`.
      layers: its levels, each with a Gaussian of its own.
      reduce: which principal components of a level are kept: "none" of them is left out; "pca" keeps the first ones; "npca"
        (negated PCA, section IV-D) keeps the others, which vary little among normal images.
      variance: fraction of the variance at which "pca" and "npca" cut; the component that crosses it counts to both, and for
        "npca" the one before as well, as in the authors' code.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or fewer than two training images.
    """
    layers = check_layers(backbone, layers)
    check_options("(0, 1)", variance=variance)
    if reduce not in ("none", "pca", "npca"):
        raise UserError(f"detector.reduce must be 'none', 'pca' or 'npca', got {reduce!r}")

    def embed(frozen, image):
        return ops.level_means(backbone.features(frozen["backbone"], image, layers))

    def widths(frozen, spec):
        image = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
        shapes = jax.eval_shape(lambda x: backbone.features(frozen["backbone"], x, layers), image)
        return [level.shape[-1] for level in shapes]

    def init(key, frozen, spec):
        del key, frozen
        return init_rows(spec.num_images, spec.features.shape[1:])

    def kept(centred):
        """`[D, k]`, the axes of the components that are kept."""
        if reduce == "none":
            return np.eye(centred.shape[1])
        _, sides, axes = np.linalg.svd(centred, full_matrices=False)
        last = int(np.argmax(np.cumsum(sides**2) / np.sum(sides**2) > variance))
        return axes[: last + 1].T if reduce == "pca" else axes[max(0, last - 1) :].T

    def phases(spec):
        def finalize(key, state, frozen):
            del key
            x = rows_of(state)
            if len(x) < 2:
                raise UserError(f"gaussian_ad needs at least two training images, got {len(x)}")
            means, factors = [], []
            for level in np.split(x, np.cumsum(widths(frozen, spec))[:-1], axis=1):
                mean = level.mean(axis=0)
                axes = kept(level - mean)
                lower = np.linalg.cholesky(ledoit_wolf((level - mean) @ axes))
                means.append(jnp.asarray(mean, jnp.float32))
                # Sigma = L L^T, so that the distance is |L^-1 z|
                factors.append(jnp.asarray(np.linalg.solve(lower, axes.T), jnp.float32))
            return Gaussians(tuple(means), tuple(factors))

        def finalized(state):
            return Gaussians((state.count,) * len(layers), (state.count,) * len(layers))

        return (rows_phase(finalize, finalized),)

    def predict(state, frozen, batch):
        del frozen
        score, start = jnp.zeros(len(batch.features)), 0
        for mean, factor in zip(state.means, state.factors, strict=True):
            x = batch.features[:, start : start + len(mean)] - mean[None]
            # eq. 2, summed over levels
            score += jnp.linalg.norm(jnp.matmul(x, factor.T, precision="highest"), axis=1)
            start += len(mean)
        return Prediction(score)

    return Detector(init, phases, predict, embed)
