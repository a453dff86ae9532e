"""Moments of feature vectors whatever their position, their principal axes, and features of whole images as vectors."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.backbones import Backbone
from iadjax.detectors.families.gaussian import Moments, add_moments
from iadjax.errors import UserError

__all__ = ["add_vectors", "components_for", "covariance_of", "pooled_level", "principal_axes"]


def add_vectors(moments: Moments, x: jax.Array, valid: jax.Array) -> Moments:
    """The moments of all vectors after a batch: one Gaussian for all positions, and every position of an image counts.

    Args:
      moments: of one position, `init_moments((), 1, D)`; its count is that of vectors.
      x: `[B, ..., D]`.
      valid: `[B]` bool; the vectors of other rows do not count.
    """
    rows = x.reshape(len(x), -1, x.shape[-1])
    return add_moments(moments, rows.reshape(-1, 1, x.shape[-1]), jnp.repeat(valid, rows.shape[1]))


def covariance_of(moments: Moments) -> np.ndarray:
    """The sample covariance `[D, D]` in float64, with N - 1 in its denominator."""
    return np.asarray(moments.scatter[0], np.float64) / max(float(moments.count) - 1, 1)


def principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variances `[D]`, the largest first, and their axes `[D, D]`, one for each column."""
    variances, axes = np.linalg.eigh(covariance)
    return np.maximum(variances[::-1], 0), axes[:, ::-1]


def components_for(variances: np.ndarray, ratio: float) -> int:
    """How many of the first axes reach a fraction `ratio` of the whole variance."""
    cumulative = np.cumsum(variances) / np.sum(variances)
    return min(int(np.searchsorted(cumulative, ratio)) + 1, len(variances))


def pooled_level(backbone: Backbone, variables, image: jax.Array, layer: str, pooling: int) -> jax.Array:
    """One level of a network, averaged over windows without overlap: `[B, h, w, C]`.

    Args:
      backbone, variables, image: the network and its input.
      layer: the level.
      pooling: side of the windows.

    Raises:
      UserError: windows that are larger than the level's grid.
    """
    (level,) = backbone.features(variables, image, (layer,))
    height, width = level.shape[1:3]
    if min(height, width) < pooling:
        raise UserError(f"detector.pooling={pooling} is larger than the grid of {layer}, {height} x {width}")
    return ops.block_mean(level, pooling)
