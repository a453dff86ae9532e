"""RD++: "Revisiting Reverse Distillation for Anomaly Detection" (Tien et al., CVPR 2023).

RD4AD with a projection between the teacher and the bottleneck. It is trained to give the features of an image with noise in a
rectangle those of the image without. So abnormal features do not reach the student.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.reverse import cosine_map, reverse_student
from iadjax.errors import UserError
from iadjax.nn.layers import Conv
from iadjax.nn.norms import instance_norm
from iadjax.parallel.axis import all_rows, num_replicas
from iadjax.synthesis.simplex import simplex_patch

__all__ = ["rdpp"]


# the channels of a projection's convolutions are C over these
_DIVISORS = (2, 4, 2, 1)


class Projection(nn.Module):
    """phi of one level: four convolutions with a bottleneck of C / 4, each with instance normalisation (section 3.2)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        depth = x.shape[-1]
        for i, features in enumerate(depth // divisor for divisor in _DIVISORS):
            x = nn.leaky_relu(instance_norm(Conv(max(1, features), name=f"proj_{3 * i}")(x)))
        return x


class Projections(nn.Module):
    """One projection for each level."""

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array]) -> list[jax.Array]:
        return [Projection(name=f"proj_{letter}")(level) for letter, level in zip("abc", levels, strict=True)]


def rdpp(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    projection_weight: float = 0.2,
    halves: bool = False,
    reconstruction_weight: float = 0.01,
    contrast_weight: float = 0.1,
    margin: float = 0.5,
    noise_strength: float = 0.2,
    octaves: int = 6,
    persistence: float = 0.6,
    epochs: int = 200,
    projection_rate: float = 1e-3,
    learning_rate: float = 5e-3,
    beta1: float = 0.5,
    beta2: float = 0.999,
    sigma: float = 4.0,
) -> Detector:
    """Builds RD++.

    Map: cosine distance of features, summed over the levels, in [0, 6], smoothed.

    The authors' code clears the gradients before every batch and steps after every second one, so half of its batches train
    nothing. Here every batch trains.

    Args:
      backbone: the teacher E; its variables are `frozen["backbone"]`. The student is RD4AD's.
      layers: three levels, each of half the grid of the one before.
      projection_weight: of the losses of the projections beside that of the distillation.
      halves: whether optimal transport draws one half of a batch of normal images towards the other. In the authors' code the
        transport goes from a batch to the same batch in another order. That is the same set, so the term and its gradient are
        0, and by default it is left out.
      reconstruction_weight: of the cosine distance between the projected features with and without noise.
      contrast_weight, margin: of the similarity above the margin between features with noise and projected normal ones.
      noise_strength, octaves, persistence: of the simplex noise (`synthesis.simplex`).
      epochs: passes over the images; the authors have from 10 to 300 by category.
      projection_rate, learning_rate: of two Adams, for the projections, and for bottleneck and decoder.
      beta1, beta2: of both.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    if len(layers) != 3:
        raise UserError(f"detector.layers must name three levels for rdpp, got {', '.join(layers)}")
    check_options("[1, inf)", epochs=epochs, octaves=octaves)
    check_options("(0, inf)", projection_rate=projection_rate, learning_rate=learning_rate)
    check_options("[0, 1)", beta1=beta1, beta2=beta2)
    check_options("[0, inf)", projection_weight=projection_weight, reconstruction_weight=reconstruction_weight)
    check_options("[0, inf)", contrast_weight=contrast_weight, noise_strength=noise_strength, sigma=sigma)
    check_options("[0, 1]", persistence=persistence, margin=margin)
    projections = Projections()

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def augment(rng, image, draw):
        del draw
        return {"noisy": simplex_patch(rng, image, strength=noise_strength, octaves=octaves, persistence=persistence)}

    def init_variables(key, frozen, spec):
        del frozen
        keys = jax.random.split(key)
        levels = [jnp.zeros(level.shape) for level in spec.features]
        student = reverse_student(backbone, levels).init(keys[0], levels)
        params = {"proj": projections.init(keys[1], levels)["params"], "student": student["params"]}
        return {"params": params, "batch_stats": student["batch_stats"]}

    def project(variables, levels):
        return projections.apply({"params": variables["params"]["proj"]}, levels)

    def restore(variables, levels, *valid, **options):
        own = {"params": variables["params"]["student"], "batch_stats": variables["batch_stats"]}
        return reverse_student(backbone, levels).apply(own, levels, *valid, **options)

    def transport(key, projected, valid):
        """The Sinkhorn divergence between two random halves of the real rows, each image one point."""
        points, valid = all_rows((jax.nn.softmax(projected.reshape(len(projected), -1)), valid))
        order = jnp.argsort(jnp.where(valid, jax.random.uniform(key, valid.shape), 2.0))
        rank, number = jnp.argsort(order), jnp.sum(valid)
        # one image is compared with itself: an empty side would have no finite divergence
        whole = valid | (number == 0)
        sides = [jnp.where(number > 1, valid & side, whole) for side in (rank < number // 2, rank >= number // 2)]
        sizes = [jnp.sum(side) for side in sides]
        first, second = (side.astype(points.dtype) / size.astype(points.dtype) for side, size in zip(sides, sizes, strict=True))
        # the largest distance of two vectors of probabilities is the root of 2
        return ops.sinkhorn_divergence(points, points, first, second, diameter=2.0)

    def loss(key, variables, frozen, batch):
        features, noisy = batch.features, jax.lax.stop_gradient(embed(frozen, batch.extra["noisy"]))
        both = [jnp.concatenate(pair) for pair in zip(features, noisy, strict=True)]
        normal, abnormal = zip(*(jnp.split(level, 2) for level in project(variables, both)), strict=True)
        # the student sees the projected features, and restores those of the teacher
        restored, changed = restore(variables, normal, batch.valid, mutable="batch_stats")
        distilled = sum(losses.cosine_distance(e, d) for e, d in zip(features, restored, strict=True))
        reconstructed = sum(losses.cosine_distance(a, b, flatten=False) for a, b in zip(abnormal, normal, strict=True))
        similar = (1 - losses.cosine_distance(e, z) for e, z in zip(noisy, normal, strict=True))
        contrast = sum(jnp.maximum(0, each - margin) for each in similar)
        projection = reconstruction_weight * reconstructed + contrast_weight * contrast
        total = 1 + reconstruction_weight + contrast_weight
        value = losses.mean(distilled + projection_weight * projection / total, batch.valid)
        if halves:
            keys = jax.random.split(key, len(normal))
            divergence = sum(transport(each, z, batch.valid) for each, z in zip(keys, normal, strict=True))
            value += projection_weight * divergence / total / num_replicas()
        return value, (changed, {})

    def predict(variables, frozen, batch):
        del frozen
        restored = restore(variables, project(variables, batch.features))
        maps = cosine_map(batch.features, restored, batch.image.shape[1:3], sigma)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        del spec
        rates = {"proj": projection_rate, "student": learning_rate}
        return optax.multi_transform(
            {name: optax.adam(rate, beta1, beta2) for name, rate in rates.items()}, {name: name for name in rates}
        )

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs, augment=augment)
