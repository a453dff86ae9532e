"""IKD: "Informative Knowledge Distillation for Image Anomaly Segmentation" (Cao et al., Knowledge-Based Systems 2022).

A student learns the direction of a teacher's features where the two differ most, and how these places resemble each other.
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
from iadjax.errors import UserError
from iadjax.parallel.axis import all_sum, num_replicas

__all__ = ["context_similarity", "hard_samples", "ikd"]


def hard_samples(distance: jax.Array, valid: jax.Array, margin: jax.Array, momentum: float, beta: float):
    """Adaptive hard sample mining: the places whose distance reaches a margin that follows their distribution.

    Args:
      distance: `[B, h, w]`.
      valid: `[B]`, the rows that count.
      margin: scalar, before this batch.
      momentum: weight of the margin before this batch.
      beta: the margin of one batch is the mean plus this many standard deviations.

    Returns:
      `(kept, margin)`: `[B, h, w]` of zeros and ones without a gradient, and the new margin, a scalar.
    """
    rows, distance = valid[:, None, None], jax.lax.stop_gradient(distance)
    number = all_sum(jnp.sum(valid, dtype=jnp.float32)) * distance[0].size
    mean = all_sum(jnp.sum(jnp.where(rows, distance, 0))) / number
    squares = all_sum(jnp.sum(jnp.where(rows, (distance - mean) ** 2, 0)))
    # PyTorch's standard deviation has n - 1
    spread = jnp.sqrt(squares / (number - 1))
    margin = momentum * margin + (1 - momentum) * (mean + beta * spread)
    return jnp.where(rows & (distance >= margin), 1.0, 0.0), margin


def context_similarity(t: jax.Array, s: jax.Array, kept: jax.Array) -> jax.Array:
    """Context similarity loss: mean squared difference of the Gram matrices T T^T and S S^T of the places that are kept.

    With D = S - T and P = S + T the difference is (D P^T + P D^T) / 2, so that products of `[C, C]` give its norm. No array has
    the size of a Gram matrix, and nothing cancels.

    Args:
      t, s: `[B, h, w, C]`, unit vectors of the teacher and the student.
      kept: `[B, h, w]`, zeros and ones.

    Returns:
      Scalar, of the places of all replicas.
    """
    number = jnp.maximum(all_sum(kept.sum()), 1)
    d, p = (((s + sign * t) * kept[..., None]).reshape(-1, t.shape[-1]) for sign in (-1, 1))
    dd, pp, pd = all_sum((d.T @ d, p.T @ p, p.T @ d))
    return 0.5 * (jnp.sum(dd * pp) + jnp.sum(pd * pd.T)) / number**2


def ikd(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("branch1", "branch2"),
    level_weights: Sequence[float] = (1.0, 2.0),
    width: int = 64,
    beta: float = 2.0,
    gamma: float = 1.0,
    momentum: float = 0.01,
    shared_margin: bool = True,
    epochs: int = 50,
    learning_rate: float = 1e-5,
) -> Detector:
    """Builds IKD.

    Map: product over the levels of the squared distance of unit features, each in [0, 4].

    Args:
      backbone: the teacher, HRNet-32 in the paper; its variables are `frozen["backbone"]`. The student of an HRNet or a ResNet
        is that network, with new weights. The student of other networks has the stages of a ResNet-18, and a convolution of
        kernel 1 to the teacher's channels of each level.
      layers: the levels, which are brought to stride 4.
      level_weights: of the loss of each level; the loss is their weighted mean.
      width: channels of the first stage of a student that is not an HRNet.
      beta: standard deviations above the mean, where samples are hard.
      gamma: weight of the context similarity loss.
      momentum: weight of the margin before the batch. The authors' moving average gives the new value 0.99.
      shared_margin: one margin is carried from level to level and from batch to batch, as in the authors' code. False: each
        level has its own.
      epochs, learning_rate: of Adam.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: a level whose grid no stage
        of the student has.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", width=width, epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", beta=beta, gamma=gamma)
    check_options("[0, 1)", momentum=momentum)
    if len(level_weights) != len(layers) or any(not 0 < weight < float("inf") for weight in level_weights):
        raise UserError(f"ikd needs a positive weight for each of {len(layers)} layers, got level_weights={level_weights}")

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def init_variables(key, frozen, spec):
        del frozen
        variables = init_twin(key, backbone, layers, width, spec, "ikd")
        return {**variables, "mining": {"margins": jnp.zeros(1 if shared_margin else len(layers))}}

    def units(levels, batch):
        """Unit vectors of every level at stride 4."""
        size = tuple(-(-side // 4) for side in batch.image.shape[1:3])
        return [ops.unit(ops.resize(level, size, align_corners=True)) for level in levels]

    def distances(teacher, found):
        return [jnp.sum((t - s) ** 2, axis=-1) for t, s in zip(teacher, found, strict=True)]

    def loss(key, variables, frozen, batch):
        del key, frozen
        levels, changed = twin_levels(backbone, layers, width, variables, batch, batch.valid)
        teacher, found = units(batch.features, batch), units(levels, batch)
        margins, total = list(variables["mining"]["margins"]), 0.0
        for i, (t, s, distance) in enumerate(zip(teacher, found, distances(teacher, found), strict=True)):
            place = 0 if shared_margin else i
            kept, margins[place] = hard_samples(distance, batch.valid, margins[place], momentum, beta)
            similarity = jnp.sum(distance * kept) / jnp.maximum(all_sum(kept.sum()), 1)
            # replicas add up their losses, and each knows the whole of this one
            context = context_similarity(t, s, kept) / num_replicas()
            total += level_weights[i] / sum(level_weights) * (similarity + gamma * context)
        return total, ({**changed, "mining": {"margins": jnp.stack(margins)}}, {})

    def predict(variables, frozen, batch):
        del frozen
        size = batch.image.shape[1:3]
        levels, _ = twin_levels(backbone, layers, width, variables, batch)
        maps = jnp.prod(jnp.stack(distances(units(batch.features, batch), units(levels, batch))), axis=0)
        maps = ops.anomaly_map(maps, size)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        del spec
        return optax.adam(learning_rate)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs, needs_image=True)
