"""DFKDE: "Anomalib: A Deep Learning Library for Anomaly Detection" (Akcay et al., ICIP 2022, arXiv 2202.08341).

Deep feature kernel density estimation has no paper of its own. The mean over positions of a network's features is the vector of
an image. The first principal components of such vectors have a density, a mixture of one Gaussian around each normal image. An
image is anomalous where the density is low.
"""

import math
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
from iadjax.errors import UserError

__all__ = ["Kernels", "dfkde"]


class Kernels(NamedTuple):
    """What predicts.

    Attributes:
      mean: `[D]` of the vectors.
      axes: `[D, k]`, the first principal ones.
      whitening: `[k, k]`: it turns the covariance of a kernel into the identity.
      points: `[N, k]`, the training images, whitened.
      height: scalar; the logarithm of a kernel's largest density over N.
    """

    mean: jax.Array
    axes: jax.Array
    whitening: jax.Array
    points: jax.Array
    height: jax.Array


def dfkde(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer4",),
    num_components: int = 16,
    scaling: str = "scale",
) -> Detector:
    """Builds DFKDE.

    Map: none, the score is of the whole image, the negative logarithm of the density.

    anomalib's score is 1 / (1 + exp(0.05 (log density - 12))), which has the same order. But its density of far images is 0 in
    float32, so all of them have the score 1. Here the logarithm is of the sum of the kernels, so they differ.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: its levels, whose vectors are joined. anomalib joins several along the batch, which is a defect.
      num_components: k, of the principal components.
      scaling: "scale": components are divided by the largest norm of a training image; "norm": each image's by their own norm.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: too few images; in fitting:
        images that do not differ in so many components.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", num_components=num_components)
    if scaling not in ("scale", "norm"):
        raise UserError(f"detector.scaling must be 'scale' or 'norm', got {scaling!r}")

    def embed(frozen, image):
        return ops.level_means(backbone.features(frozen["backbone"], image, layers))

    def init(key, frozen, spec):
        del key, frozen
        number, depth = spec.num_images, spec.features.shape[1]
        # of N centred vectors at most N - 1 are independent
        if num_components > (most := min(number - 1, depth)):
            raise UserError(
                f"detector.num_components={num_components} is too many for {number} training images of {depth} features; it "
                f"can be at most {most}"
            )
        return init_rows(number, (depth,))

    def finalize(key, state, frozen):
        del key, frozen
        x = rows_of(state)
        number, k = len(x), num_components
        mean = x.mean(axis=0)
        _, _, axes = np.linalg.svd(x - mean, full_matrices=False)
        axes = axes[:k].T
        z = (x - mean) @ axes
        norms = np.linalg.norm(z, axis=1, keepdims=True)
        if scaling == "scale":
            axes = axes / (norms.max() or 1)
            z = (x - mean) @ axes
        else:
            # an image may be the mean of all
            z = z / np.maximum(norms, 1e-12)
        # Scott's rule for the width of the kernels
        covariance = np.atleast_2d(np.cov(z.T)) * number ** (-2 / (k + 4))
        variances = np.linalg.eigvalsh(covariance)
        if not variances[0] > 1e-12 * variances[-1]:
            raise UserError(f"the training images do not differ in {k} components; lower detector.num_components")
        whitening = np.linalg.inv(np.linalg.cholesky(covariance)).T
        height = np.log(np.diag(whitening)).sum() - k / 2 * math.log(2 * math.pi) - math.log(number)
        return Kernels(*(jnp.asarray(each, jnp.float32) for each in (mean, axes, whitening, z @ whitening, height)))

    def phases(spec):
        del spec
        return (rows_phase(finalize, lambda state: Kernels(*(state.rows for _ in Kernels._fields))),)

    def predict(state, frozen, batch):
        del frozen
        z = jnp.matmul(batch.features - state.mean[None], state.axes, precision="highest")
        if scaling == "norm":
            z = ops.unit(z)
        z = jnp.matmul(z, state.whitening, precision="highest")
        squared = jnp.sum((z[:, None] - state.points[None]) ** 2, axis=-1)
        return Prediction(-state.height - jax.nn.logsumexp(-squared / 2, axis=1))

    return Detector(init, phases, predict, embed)
