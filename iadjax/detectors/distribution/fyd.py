"""FYD: "Focus Your Distribution: Coarse-to-Fine Non-Contrastive Learning for Anomaly Detection and Localization" (Zheng et al.,
ICME 2022, arXiv 2110.04538).

Spatial transformers bring the objects of all normal images into one pose. A projection then makes features of one position
alike in all images, and each position has its own Gaussian.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gaussian import (
    Gaussian,
    Moments,
    add_moments,
    fitted_gaussian,
    init_moments,
    mahalanobis,
    whitening,
)
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm
from iadjax.nn.spatial import Localization, affine, inverse, warp
from iadjax.parallel.axis import all_sum

__all__ = ["Aligned", "Aligning", "Network", "coarse_loss", "fine_loss", "fyd"]


class Network(nn.Module):
    """Spatial transformers of the levels, projection and predictor.

    Attributes:
      width: channels of the projection z.
      limits: rotation, scale and translation, see `nn.spatial.affine`.
    """

    width: int
    limits: tuple[float, float, float]

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """`[B, h, w, C]` of each level to z and the prediction p, `[B, h, w, width]` on the first level's grid."""
        moved = []
        for i, level in enumerate(levels):
            theta = affine(Localization(name=f"transformer{i}")(level, valid), *self.limits)
            moved.append(ops.resize(warp(level, theta), levels[0].shape[1:3]))
        z = jnp.concatenate(moved, axis=-1)
        for i in (1, 2, 3):
            z = BatchNorm(name=f"project_norm{i}")(Conv(self.width, 1, bias=False, name=f"project{i}")(z), valid)
            z = z if i == 3 else nn.relu(z)
        p = Conv(self.width // 4 or 1, 1, bias=False, name="predict1")(z)
        p = nn.relu(BatchNorm(name="predict_norm1")(p, valid))
        return z, Conv(self.width, 1, name="predict2")(p)


class Aligning(NamedTuple):
    """The state in fitting: `trained` holds the parameters {"image": the image's transformer, "network": `Network`}."""

    trained: Trained
    moments: Moments


class Aligned(NamedTuple):
    """What predicts; `variables`: {"image": ..., "network": ...}."""

    variables: Any
    gaussian: Gaussian


def coarse_loss(image: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean squared difference of all pairs of images, over their pixels; this replica's part.

    Args:
      image: `[B, H, W, C]`, moved.
      valid: `[B]`, the rows that count.
    """
    rows = valid[:, None, None, None].astype(image.dtype)
    number = all_sum(valid.sum().astype(image.dtype))
    # pairs differ by twice the variance; its gradient through the mean is zero
    mean = jax.lax.stop_gradient(all_sum(jnp.sum(rows * image, axis=0)) / number)
    return 2 * jnp.sum(rows * (image - mean[None]) ** 2) / (jnp.maximum(number - 1, 1) * mean.size)


def fine_loss(z: jax.Array, p: jax.Array, valid: jax.Array) -> jax.Array:
    """Minus the mean cosine of p of an image and z of another one at the same position; this replica's part.

    Args:
      z, p: `[B, h, w, C]`; no gradient goes through z, as in SimSiam (Chen & He, CVPR 2021).
      valid: `[B]`, the rows that count.
    """
    rows = valid[:, None, None, None].astype(z.dtype)
    z, p = rows * ops.unit(jax.lax.stop_gradient(z)), rows * ops.unit(p)
    others = all_sum(jnp.sum(z, axis=0))[None] - z
    number = all_sum(valid.sum().astype(z.dtype))
    return -jnp.sum(p * others) / (jnp.maximum(number * (number - 1), 1) * z[0, ..., 0].size)


def fyd(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    width: int = 128,
    rotation: float = 15.0,
    scale: float = 0.1,
    translation: float = 0.1,
    coarse_weight: float = 1.0,
    epochs: int = 50,
    learning_rate: float = 1e-2,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    epsilon: float = 0.01,
    sigma: float = 4.0,
) -> Detector:
    """Builds FYD.

    Map: Mahalanobis distance of projected features, smoothed.

    Neither code nor constants of the authors are public, only their abstract and outlines of it. From them are: the stages,
    pairs of images of a batch at the same position, the stopped gradient, the Gaussian of each position. Ours are: all
    constants, the limits of the transformers, the order of layers in them and in the projection. Here the transformer of a
    level moves its features for the projection alone. The next stage of the frozen network reads them unmoved.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: the levels, which are joined on the grid of the first one.
      width: channels of the projection.
      rotation, scale, translation: limits of the spatial transformers, see `nn.spatial.affine`.
      coarse_weight: weight of the coarse alignment of the images.
      epochs, learning_rate, momentum, weight_decay: of SGD, whose rate falls to zero by half a cosine.
      epsilon: added to the diagonal of covariances.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", width=width, epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate, epsilon=epsilon)
    check_options("[0, inf)", rotation=rotation, scale=scale, translation=translation)
    check_options("[0, inf)", coarse_weight=coarse_weight, weight_decay=weight_decay, sigma=sigma)
    check_options("[0, 1)", momentum=momentum)
    limits = rotation, scale, translation
    image_network, network = Localization(), Network(width, limits)

    def levels_of(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def pose(variables, image):
        return affine(image_network.apply(variables["image"], image, None), *limits)

    def project(variables, frozen, image):
        """Features z `[B, h, w, width]` of images in the common pose."""
        z, _ = network.apply(variables["network"], levels_of(frozen, warp(image, pose(variables, image))), None)
        return z

    def optimizer(spec):
        schedule = optax.cosine_decay_schedule(learning_rate, epochs * spec.steps_per_epoch)
        return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(schedule, momentum))

    def nested(variables):
        return {name: {kind: variables[kind][name] for kind in variables} for name in ("image", "network")}

    def init(key, frozen, spec):
        keys, image = jax.random.split(key), jnp.zeros((1, *spec.image_shape))
        levels = levels_of(frozen, image)
        first = {"image": image_network.init(keys[0], image, None), "network": network.init(keys[1], levels, None)}
        collections = {kind: {name: first[name][kind] for name in first} for kind in ("params", "batch_stats")}
        positions = levels[0].shape[1] * levels[0].shape[2]
        return Aligning(init_trained(collections, optimizer(spec)), init_moments((), positions, width))

    def phases(spec):
        def align(key, state, frozen, batch):
            del key

            def objective(variables):
                own = nested(variables)
                chosen, one = image_network.apply(own["image"], batch.image, batch.valid, mutable="batch_stats")
                moved = warp(batch.image, affine(chosen, *limits))
                coarse = coarse_loss(moved, batch.valid)
                levels = levels_of(frozen, jax.lax.stop_gradient(moved))
                (z, p), two = network.apply(own["network"], levels, batch.valid, mutable="batch_stats")
                fine = fine_loss(z, p, batch.valid)
                statistics = {"image": one["batch_stats"], "network": two["batch_stats"]}
                return fine + coarse_weight * coarse, ({"batch_stats": statistics}, {"loss_coarse": coarse, "loss_fine": fine})

            trained, info = train_step(state.trained, objective, optimizer(spec))
            return state._replace(trained=trained), info

        def see(key, state, frozen, batch):
            del key
            z = project(nested(state.trained.variables), frozen, batch.image)
            moments = add_moments(state.moments, z, batch.valid)
            return state._replace(moments=moments), {"images": moments.count}

        def end(key, state, frozen):
            del key, frozen
            fitted = fitted_gaussian(state.moments, lambda covariance: whitening(covariance, epsilon))
            return Aligned(nested(state.trained.variables), fitted)

        def ended(state):
            return Aligned(nested(state.trained.variables), Gaussian(*state.moments))

        return Phase("align", align, epochs=epochs), Phase("fit", see, end, finalized=ended)

    def predict(state, frozen, batch):
        size = batch.image.shape[1:3]
        distance = mahalanobis(state.gaussian, project(state.variables, frozen, batch.image))
        # back from the common pose
        maps = warp(ops.anomaly_map(distance, size)[..., None], inverse(pose(state.variables, batch.image)))[..., 0]
        maps = ops.gaussian_blur(maps, sigma) if sigma else maps
        return Prediction(maps.max(axis=(1, 2)), maps)

    def warm_start(fresh, old):
        variables = {kind: {name: old.variables[name][kind] for name in old.variables} for kind in ("params", "batch_stats")}
        return fresh._replace(trained=copy_variables(fresh.trained, Trained(variables, ())))

    return Detector(init, phases, predict, warm_start=warm_start)
