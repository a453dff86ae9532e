"""SubspaceAD: "Training-Free Few-Shot Anomaly Detection via Subspace Modeling" (Lendering et al., CVPR 2026, arXiv 2602.23013).

The patch tokens of a few normal images, and of rotated copies, span a linear subspace, found by PCA. The score of a patch is
what the subspace leaves of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from iadjax import ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction, keep
from iadjax.detectors.families.gaussian import init_moments
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.subspace import add_vectors, components_for, covariance_of, principal_axes
from iadjax.errors import UserError
from iadjax.synthesis.rotation import rotate_nearest

__all__ = ["Subspace", "subspacead"]


class Subspace(NamedTuple):
    """What predicts.

    Attributes:
      count: float32 scalar; tokens that it was fitted on.
      mean: mu, `[D]`.
      complement: `[D, D - k]`, an orthonormal basis of all directions outside the subspace.
    """

    count: jax.Array
    mean: jax.Array
    complement: jax.Array


def subspacead(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("block23", "block24", "block25", "block26", "block27", "block28", "block29"),
    aggregation: str = "mean",
    rotations: int = 30,
    variance: float = 0.99,
    top: float = 0.01,
    sigma: float = 4.0,
    kernel_size: int = 3,
) -> Detector:
    """Builds SubspaceAD.

    Map: squared distance of a token from the subspace of normal tokens, smoothed.

    The state keeps streaming moments, so memory does not grow with the number of images. The residual is the squared length of
    the part in the complement of the subspace. That is the authors' |x - x'|^2 without cancellation.

    Args:
      backbone: frozen network; DINOv2 ViT-g/14 with registers in the paper.
      layers: their tokens; the default are the authors' "-12 to -18" of 40 blocks, without the last norm.
      aggregation: of the layers: "mean", the paper's, or "concatenate" on the grid of the first one.
      rotations: rotated copies of each reference image, by random angles between 0 and 345 degrees; 0 = none, as for unlabelled
        test images and for many training images. The authors rotate files before the resize, here the resized image is rotated.
      variance: fraction of the variance that the subspace explains (tau in the paper), in (0, 1).
      top: fraction of the pixels, in (0, 1]; the mean of the largest ones is the image's score.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.
      kernel_size: taps of that Gaussian, odd. The authors' code has 3, which is nearly a mean. The paper states sigma alone:
        33 taps are its whole Gaussian.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, layers of several widths that cannot be
        averaged, or a subspace that takes all channels.
    """
    layers = check_layers(backbone, layers)
    if aggregation not in ("mean", "concatenate"):
        raise UserError(f"detector.aggregation must be 'mean' or 'concatenate', got {aggregation!r}")
    check_options("[0, inf)", rotations=rotations, sigma=sigma)
    check_options("(0, 1)", variance=variance)
    check_options("(0, 1]", top=top)
    check_odd(kernel_size=kernel_size)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        if aggregation == "concatenate":
            return ops.concatenate_levels(levels)
        shapes = {level.shape[1:] for level in levels}
        if len(shapes) > 1:
            raise UserError(
                f"the layers {', '.join(layers)} have several shapes, so no mean; set detector.aggregation='concatenate'"
            )
        return sum(levels) / len(levels)

    def init(key, frozen, spec):
        del key, frozen
        return init_moments((), 1, spec.features.shape[-1])

    def reference(key, state, frozen, batch):
        del key, frozen
        return _added(state, batch.features, batch.valid)

    def rotated(key, state, frozen, batch):
        del key
        return _added(state, embed(frozen, batch.extra["rotated"]), batch.valid)

    def augment(rng, image, draw):
        del draw
        return {"rotated": rotate_nearest(image, rng.uniform(0, 345))}

    def finalize(key, state, frozen):
        del key, frozen
        variances, axes = principal_axes(covariance_of(state))
        # the smallest k whose variances sum to tau of the whole
        components = components_for(variances, variance)
        depth = len(variances)
        if components == depth:
            raise UserError(
                f"{variance:g} of the variance takes all {depth} channels, which leaves no residual; lower detector.variance"
            )
        progress.say(f"the subspace has {components} of {depth} dimensions")
        return Subspace(state.count, state.mean[0], jnp.asarray(axes[:, components:], jnp.float32))

    def finalized(state):
        return Subspace(state.count, state.mean, state.scatter)

    def phases(spec):
        del spec
        end = {"finalize": finalize, "finalized": finalized}
        if not rotations:
            return (Phase("reference", reference, **end),)
        return (
            Phase("reference", reference, finalize=keep),
            Phase("rotations", rotated, epochs=rotations, augment=augment, **end),
        )

    def predict(state, frozen, batch):
        del frozen
        # S(x) = |x - x'|^2, x' the projection on the subspace
        x = batch.features
        outside = jnp.matmul(x - ops.per_channel(state.mean, x), state.complement, precision="highest")
        residual = jnp.sum(outside**2, axis=-1)
        maps = ops.anomaly_map(residual, batch.image.shape[1:3])
        if sigma and kernel_size > 1:
            maps = ops.kernel_blur(maps, sigma, kernel_size)
        return Prediction(ops.top_mean(maps.reshape(len(maps), -1), top), maps)

    return Detector(init, phases, predict, embed)


def _added(state, tokens: jax.Array, valid: jax.Array):
    state = add_vectors(state, tokens, valid)
    return state, {"tokens": state.count}
