"""RD4AD: "Anomaly Detection via Reverse Distillation from One-Class Embedding" (Deng & Li, CVPR 2022, arXiv 2201.10703).

A frozen teacher E gives features at three scales. A one-class bottleneck phi compresses them into an embedding. A student
decoder D, the mirrored teacher, restores them. D cannot restore what it never saw.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import optax

from iadjax import losses
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.reverse import cosine_map, reverse_student
from iadjax.detectors.families.schedules import check_schedule, rate_schedule
from iadjax.errors import UserError

__all__ = ["rd4ad"]


def rd4ad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    flatten: bool = True,
    epochs: int = 200,
    learning_rate: float = 0.005,
    beta1: float = 0.5,
    beta2: float = 0.999,
    schedule: str = "constant",
    warmup: float = 0.0,
    sigma: float = 4.0,
) -> Detector:
    """Builds RD4AD.

    Map: cosine distance of features, summed over the levels, in [0, 6], smoothed.

    Args:
      backbone: the teacher E; its variables are `frozen["backbone"]`. The student of a ResNet has blocks of the same kind and
        number. The student of other networks has two basic blocks per stage.
      layers: three levels, each of half the grid of the one before.
      flatten: one cosine over the flattened features of an image and level, as in the authors' code and figures. False: the
        mean of the cosines of all positions (eq. 1-2 of the paper).
      epochs, learning_rate, beta1, beta2: Adam's, section 4.1.
      schedule, warmup: of the rate over the whole run, see `families.schedules.rate_schedule`.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    if len(layers) != 3:
        raise UserError(f"detector.layers must name three levels for rd4ad, got {', '.join(layers)}")
    check_options("[1, inf)", epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, 1)", beta1=beta1, beta2=beta2)
    check_options("[0, inf)", sigma=sigma)
    check_schedule(schedule, warmup)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def init_variables(key, frozen, spec):
        del frozen
        return reverse_student(backbone, spec.features).init(key, [jnp.zeros(level.shape) for level in spec.features])

    def loss(key, variables, frozen, batch):
        del key, frozen
        features = batch.features
        restored, changed = reverse_student(backbone, features).apply(variables, features, batch.valid, mutable="batch_stats")
        # eq. 2: the sum over the levels
        total = sum(losses.cosine_distance(e, d, flatten) for e, d in zip(features, restored, strict=True))
        return losses.mean(total, batch.valid), (changed, {})

    def predict(variables, frozen, batch):
        del frozen
        features = batch.features
        restored = reverse_student(backbone, features).apply(variables, features)
        maps = cosine_map(features, restored, batch.image.shape[1:3], sigma)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def optimizer(spec):
        rate = rate_schedule(schedule, learning_rate, epochs * spec.steps_per_epoch, warmup)
        return optax.adam(rate, beta1, beta2)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
