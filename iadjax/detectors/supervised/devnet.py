"""DevNet: "Explainable Deep Few-shot Anomaly Detection with Deviation Networks" (Pang et al., 2021, arXiv 2108.00462).

A network and a scoring head phi are trained on many normal and a few labelled anomalous images, so that the scores of
normal images look like draws from a standard normal and those of anomalies lie at least a margin above its mean.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.schedules import adam_with_l2, step_decay
from iadjax.errors import UserError

__all__ = ["devnet"]


def devnet(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer4",),
    train_backbone: bool = True,
    scales: int = 2,
    top: float = 0.1,
    margin: float = 5.0,
    num_reference: int = 5000,
    anomaly_share: float = 1 / 3,
    steps: int = 600,
    learning_rate: float = 2e-4,
    weight_decay: float = 1e-5,
    clip_norm: float = 1.0,
    decay_every: int = 200,
) -> Detector:
    """Builds DevNet; it needs labelled anomalies: `protocol.name="supervised"`.

    Args:
      backbone: the feature learner psi, which starts from its weights. Its batch statistics stay those of the weights; the
        authors' code moves them, which makes scores depend on the mix of a batch.
      layers: the levels the head sees, on the grid of the first one.
      train_backbone: whether psi is trained with the head, as in the paper.
      scales: how many sizes of the image are scored and averaged, each half of the one before (nearest neighbours, as the
        authors' code).
      top: share of the positions with the largest |score| whose mean is the image's score (eq. 3), in (0, 1].
      margin: a of eq. 5.
      num_reference: l, draws from the prior N(0, 1) at every step (eq. 4).
      anomaly_share: share of a batch that is labelled anomalies, drawn with replacement.
      steps, learning_rate, weight_decay, clip_norm, decay_every: Adam's (30 epochs of 20 steps, the rate to a tenth after
        each tenth epoch), with the L2 term in the gradient and its norm clipped, as in the authors' code.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    if not 0 < top <= 1 or not 0 < anomaly_share < 1 or min(scales, steps, decay_every) < 1 or num_reference < 2:
        raise UserError(
            "detector: top must be in (0, 1], anomaly_share in (0, 1), scales, steps, decay_every positive and num_reference "
            f"at least 2; got {top}, {anomaly_share}, {scales}, {steps}, {decay_every} and {num_reference}"
        )

    def score_map(params, frozen, image):
        """|phi| at every position, `[B, h, w]`: a 1 x 1 convolution of the features."""
        variables = frozen["backbone"]
        if train_backbone:
            variables = {**variables, "params": params["backbone"]}
        levels = backbone.features(variables, image, layers)
        grid = levels[0].shape[1:3]
        features = jnp.concatenate([ops.resize(level, grid) for level in levels], axis=-1)
        return jnp.abs(features @ params["conv"]["kernel"] + params["conv"]["bias"])

    def pyramid(params, frozen, image):
        """The score `[B]` and the map `[B, H, W]`, means over the scales."""
        total, maps = 0.0, 0.0
        for scale in range(scales):
            small = image[:, :: 2**scale, :: 2**scale]
            scores = score_map(params, frozen, small)
            flat = scores.reshape(scores.shape[0], -1)
            # eq. 3: the K largest, multiple-instance learning
            largest, _ = jax.lax.top_k(flat, max(1, int(top * flat.shape[1])))
            total += largest.mean(axis=1) / scales
            maps += ops.resize(scores[..., None], image.shape[1:3])[..., 0] / scales
        return total, maps

    def init_variables(key, frozen, spec):
        image = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
        levels = jax.eval_shape(lambda f, x: backbone.features(f["backbone"], x, layers), frozen, image)
        depth = sum(level.shape[-1] for level in levels)
        bound = depth**-0.5
        keys = jax.random.split(key)
        conv = {
            "kernel": jax.random.uniform(keys[0], (depth,), minval=-bound, maxval=bound),
            "bias": jax.random.uniform(keys[1], (), minval=-bound, maxval=bound),
        }
        # a copy: the frozen variables are not the state's to donate
        trained = {"backbone": jax.tree.map(jnp.array, frozen["backbone"].get("params", {}))} if train_backbone else {}
        return {"params": {"conv": conv, **trained}}

    def loss(key, variables, frozen, batch):
        score, _ = pyramid(variables["params"], frozen, batch.image)
        reference = jax.random.normal(key, (num_reference,))
        values = losses.deviation(score, batch.label, reference, margin)
        return losses.mean(values, batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        return Prediction(*pyramid(variables["params"], frozen, batch.image))

    def optimizer(spec):
        del spec
        rate = step_decay(learning_rate, 0.1, *np.arange(decay_every, steps, decay_every).tolist())
        return optax.chain(optax.clip_by_global_norm(clip_norm), adam_with_l2(rate, weight_decay))

    return gradient(init_variables, loss, predict, optimizer, steps=steps, anomaly_fraction=anomaly_share)
