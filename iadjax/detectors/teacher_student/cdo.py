"""CDO: "Collaborative Discrepancy Optimization for Reliable Image Anomaly Localization" (Cao et al., IEEE TII 2023, arXiv
2302.08769).

An apprentice learns an expert's features where an image is normal, and learns to differ from them in rectangles of noise. The
pairs of features count most that are hardest: normal ones that differ, anomalous ones that do not.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.student import init_twin, twin_levels
from iadjax.parallel.axis import all_sum
from iadjax.synthesis.white_noise import white_noise_patches

__all__ = ["cdo", "discrepancy_loss"]


def discrepancy_loss(distance: jax.Array, anomalous: jax.Array, valid: jax.Array, gamma: float) -> jax.Array:
    """Weighted distances of normal features less those of anomalous ones, over the sum of all weights.

    The weight of a normal feature is (d / mu)^gamma, that of an anomalous one (d / mu)^-gamma, with mu the mean of its kind.

    Args:
      distance: d, `[B, h, w]`, squared distances of unit vectors.
      anomalous: `[B, h, w]`, where features are anomalous.
      valid: `[B]`, the rows that count.
      gamma: 0: all weights are 1.

    Returns:
      Scalar; of several replicas each has the part of its own rows.
    """
    total, weights = 0.0, 0.0
    # a smaller distance would have an infinite weight
    d = jnp.maximum(jax.lax.stop_gradient(distance), 1e-6)
    for where, sign in ((~anomalous, 1), (anomalous, -1)):
        counted = where & valid[:, None, None]
        number = jnp.maximum(all_sum(jnp.sum(counted)), 1).astype(d.dtype)
        mean = all_sum(jnp.sum(jnp.where(counted, d, 0))) / number
        weight = jnp.where(counted, (d / jnp.maximum(mean, 1e-6)) ** (sign * gamma), 0)
        total += sign * jnp.sum(weight * distance)
        weights += all_sum(jnp.sum(weight))
    return total / jnp.maximum(weights, 1e-6)


def cdo(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("branch0", "branch1", "branch2"),
    width: int = 64,
    gamma: float = 2.0,
    max_patches: int = 4,
    skip_background: bool = False,
    epochs: int = 50,
    learning_rate: float = 4e-4,
    decay: float = 0.95,
    weight_decay: float = 1e-4,
    sigma: float = 4.0,
) -> Detector:
    """Builds CDO.

    Map: squared distance of unit features, summed over the levels, each in [0, 4], smoothed.

    The authors' code is github.com/caoyunkang/CDO (MIT), here as it was with the paper. There the loss is multiplied by the
    size of the batch, which AdamW does not notice. Since 2025 that code compares each level on its own grid, trains by Adam at
    another rate, and takes the mean of the largest hundredth of the map as the score.

    Args:
      backbone: the expert, HRNet-32 in the paper; its variables are `frozen["backbone"]`. The apprentice of an HRNet or a
        ResNet is that network, with new weights. The apprentice of other networks has the stages of a ResNet-18, and a
        convolution of kernel 1 to the expert's channels of each level.
      layers: the levels, which are brought to the grid of the first one.
      width: channels of the first stage of an apprentice that is not an HRNet.
      gamma: exponent of the weights (overlap optimisation); 0: all weights are 1.
      max_patches: an image has 0 to so many rectangles of noise (margin optimisation); 0: no image has any.
      skip_background: their centres do not lie on dark or bright background; the authors choose it by category.
      epochs: passes over the normal images.
      learning_rate, decay, weight_decay: of AdamW, whose rate is multiplied by `decay` after each epoch.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: a level whose grid no stage
        of the apprentice has.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", width=width, epochs=epochs)
    check_options("[0, inf)", max_patches=max_patches, weight_decay=weight_decay, sigma=sigma)
    check_options("[0, 4]", gamma=gamma)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("(0, 1]", decay=decay)

    def expert(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def augment(rng, image, draw):
        del draw
        augmented, mask = white_noise_patches(rng, image, max_patches, skip_background)
        return {"augmented": augmented, "mask": mask}

    def init_variables(key, frozen, spec):
        # no feature is used twice: the images change from step to step
        features = jax.eval_shape(lambda: expert(frozen, jnp.zeros((1, *spec.image_shape))))
        return init_twin(key, backbone, layers, width, spec._replace(features=features), "cdo")

    def distances(variables, frozen, batch, valid=None):
        """Squared distances of every level on the first one's grid, and the changed statistics."""
        batch = batch._replace(features=jax.lax.stop_gradient(expert(frozen, batch.image)))
        levels, changed = twin_levels(backbone, layers, width, variables, batch, valid)
        grid, found = levels[0].shape[1:3], []
        for fe, fa in zip(batch.features, levels, strict=True):
            fe, fa = (ops.unit(ops.resize(each, grid, align_corners=True)) for each in (fe, fa))
            found.append(jnp.sum((fe - fa) ** 2, axis=-1))
        return found, changed

    def loss(key, variables, frozen, batch):
        del key
        seen = batch._replace(image=batch.extra["augmented"])
        found, changed = distances(variables, frozen, seen, batch.valid)
        anomalous = ops.resize_nearest(batch.extra["mask"][..., None], found[0].shape[1:3])[..., 0] > 0
        return sum(discrepancy_loss(each, anomalous, batch.valid, gamma) for each in found), (changed, {})

    def predict(variables, frozen, batch):
        found, _ = distances(variables, frozen, batch)
        maps = ops.anomaly_map(sum(found), batch.image.shape[1:3], sigma)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        rate = optax.exponential_decay(learning_rate, spec.steps_per_epoch, decay, staircase=True)
        return optax.adamw(rate, weight_decay=weight_decay)

    return gradient(init_variables, loss, predict, optimizer, epochs=epochs, augment=augment)
