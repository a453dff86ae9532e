"""STPM: "Student-Teacher Feature Pyramid Matching for Anomaly Detection" (Wang et al., BMVC 2021, arXiv 2103.04257).

A student with the teacher's architecture learns the direction of the teacher's features, at several scales, on normal images.
Where an image is anomalous, the two disagree.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.student import init_student, student

__all__ = ["stpm"]


def stpm(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    width: int = 64,
    loss_weight: float = 0.5,
    epochs: int = 100,
    learning_rate: float = 0.4,
    momentum: float = 0.9,
    weight_decay: float = 1e-4,
    at_input: bool = False,
) -> Detector:
    """Builds STPM.

    Map: product over the levels of half the squared distance of unit features, each in [0, 2].

    Args:
      backbone: the teacher T; its variables are `frozen["backbone"]`. The student of a ResNet is that ResNet. The student of
        other networks has the stages of a ResNet-18, and a convolution of kernel 1 to the teacher's channels of each level.
      layers: the levels, whose strides are 4, 8, 16 or 32.
      width: channels of the student's first stage, which each stage doubles; 64 in every ResNet.
      loss_weight: factor of the squared distance, 1/2 in eq. 1 and in anomalib; the authors' code has 1.
      epochs, learning_rate, momentum, weight_decay: of SGD, with the L2 term in the gradient.
      at_input: whether the product is taken at the size of the input, as in anomalib. The authors take it on the grid of the
        first level and enlarge it.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: a level whose grid no stage
        of the student has.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", width=width, epochs=epochs)
    check_options("(0, inf)", loss_weight=loss_weight, learning_rate=learning_rate)
    check_options("[0, 1)", momentum=momentum)
    check_options("[0, inf)", weight_decay=weight_decay)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def init_variables(key, frozen, spec):
        del frozen
        return init_student(key, backbone.name, width, spec, "stpm")

    def loss(key, variables, frozen, batch):
        del key, frozen
        network = student(backbone.name, width, batch.features, batch.image.shape[1:3])
        levels, changed = network.apply(variables, batch.image, batch.valid, mutable="batch_stats")
        # eq. 1-3: the mean over the positions of a level, the sum over the levels
        total = sum(losses.normalized_l2(t, s) for t, s in zip(batch.features, levels, strict=True))
        return losses.mean(2 * loss_weight * total, batch.valid), (changed, {})

    def predict(variables, frozen, batch):
        del frozen
        size = batch.image.shape[1:3]
        network = student(backbone.name, width, batch.features, size)
        grid = size if at_input else batch.features[0].shape[1:3]
        maps = jnp.ones((len(batch.image), *grid))
        for t, s in zip(batch.features, network.apply(variables, batch.image), strict=True):
            # eq. 4-5
            maps *= ops.anomaly_map(0.5 * jnp.sum((ops.unit(t) - ops.unit(s)) ** 2, axis=-1), grid)
        maps = ops.anomaly_map(maps, size)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        del spec
        return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum))

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs, needs_image=True)
