"""DFM: "Probabilistic Modeling of Deep Features for Out-of-Distribution and Adversarial Detection" (Ahuja et al., 2019,
arXiv 1909.11786).

The features of a whole normal image are one vector. Such vectors span a linear subspace, found by PCA. The score of an image
is what the subspace leaves of its vector, or the vector's likelihood inside of it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.rows import init_rows, rows_of, rows_phase
from iadjax.detectors.families.subspace import components_for, pooled_level
from iadjax.errors import UserError

__all__ = ["Principal", "dfm"]


class Principal(NamedTuple):
    """What predicts.

    Attributes:
      mean: `[h, w, C]`.
      axes: `[k, h, w, C]`, orthonormal.
      variances: `[k]` along them, with N in the denominator.
    """

    mean: jax.Array
    axes: jax.Array
    variances: jax.Array


def dfm(
    backbone: Backbone,
    *,
    layer: str = "layer3",
    pooling: int = 4,
    variance: float = 0.97,
    score: str = "fre",
) -> Detector:
    """Builds DFM.

    Map: squared distance of features from their projection on the principal subspace of whole images, summed over channels.

    A vector has tens of thousands of dimensions, and there are hundreds of images. So the axes come from the inner products of
    the images, `[N, N]`, in float64.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layer: its level.
      pooling: side of the windows whose means make the vector, without overlap.
      variance: fraction of the variance that the subspace has, in (0, 1).
      score: "fre": the squared distance from the subspace, feature reconstruction error (anomalib's default); "nll": the
        negative log-likelihood of a Gaussian in the subspace, the paper's, which gives no map.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or images that are all the same.
    """
    (layer,) = check_layers(backbone, (layer,))
    check_options("[1, inf)", pooling=pooling)
    check_options("(0, 1)", variance=variance)
    if score not in ("fre", "nll"):
        raise UserError(f"detector.score must be 'fre' or 'nll', got {score!r}")

    def embed(frozen, image):
        return pooled_level(backbone, frozen["backbone"], image, layer, pooling)

    def init(key, frozen, spec):
        del key, frozen
        return init_rows(spec.num_images, spec.features.shape[1:])

    def finalize(key, state, frozen):
        del key, frozen
        x = rows_of(state)
        number = len(x)
        mean = x.mean(axis=0)
        centred = (x - mean).reshape(number, -1)
        squares, sides = np.linalg.eigh(centred @ centred.T)
        squares, sides = np.maximum(squares[::-1], 0), sides[:, ::-1]
        # of N centred vectors at most N - 1 are independent
        if squares[0] <= 1e-12 * np.sum(x**2):
            raise UserError(f"the {number} training images have the same features; dfm needs images that differ")
        k = components_for(squares, variance)
        axes = (sides[:, :k] / np.sqrt(squares[:k])).T @ centred
        progress.say(f"the subspace has {k} dimensions, of {number} images")
        found = (mean, axes.reshape(k, *mean.shape), squares[:k] / number)
        return Principal(*(jnp.asarray(each, jnp.float32) for each in found))

    def phases(spec):
        del spec
        return (rows_phase(finalize, lambda state: Principal(state.rows, state.rows, state.rows)),)

    def predict(state, frozen, batch):
        del frozen
        centred = batch.features - state.mean[None]
        inside = jnp.einsum("bhwc,khwc->bk", centred, state.axes, precision="highest")
        if score == "nll":
            # twice the negative logarithm of the density, up to its constant
            distance = jnp.sum(inside**2 / ops.per_channel(state.variances, inside), axis=1)
            return Prediction(distance + jnp.sum(jnp.log(state.variances)))
        residual = centred - jnp.einsum("bk,khwc->bhwc", inside, state.axes, precision="highest")
        error = jnp.sum(residual**2, axis=-1)
        return Prediction(jnp.sum(error, axis=(1, 2)), ops.anomaly_map(error, batch.image.shape[1:3]))

    return Detector(init, phases, predict, embed)
