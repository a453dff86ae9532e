"""DevNet: "Explainable Deep Few-shot Anomaly Detection with Deviation Networks" (Pang et al., 2021, arXiv 2108.00462).

A network and a scoring head phi are trained on many normal and a few labelled anomalous images. Scores of normal images
become draws from a standard normal. Scores of anomalies lie at least a margin above its mean. The gradient of an image's score
with respect to its pixels shows where the anomaly is.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.backbone import IMAGENET_STD
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2, step_decay
from iadjax.synthesis.rotation import rotate_nearest

__all__ = ["devnet", "draw_reference", "saliency"]


def devnet(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer4",),
    train_backbone: bool = True,
    scales: int = 2,
    top: float = 0.1,
    margin: float = 5.0,
    num_reference: int = 5000,
    anomaly_fraction: float = 0.5,
    rotation: float = 180.0,
    steps: int = 1000,
    learning_rate: float = 2e-4,
    weight_decay: float = 1e-5,
    clip_norm: float = 1.0,
    decay_every: int = 200,
    quantile: float = 0.99,
    sigma: float = 4.0,
) -> Detector:
    """Builds DevNet; it needs labelled anomalies: `protocol.name="supervised"`.

    Map: size of the gradient, scaled to [0, 1] in each image, smoothed: maps of two images do not compare.

    Defaults are those of the authors' code (github.com/Choubo/deviation-network-image, no licence): 50 epochs of 20 steps. It
    is not DRA, whose authors train 30 epochs with two thirds of normal images.

    Args:
      backbone: the feature learner psi, which starts from its weights: a ResNet, or a network without BatchNorm.
      layers: the levels that the head sees, on the grid of the first one.
      train_backbone: whether psi is trained with the head, as in the paper. Then BatchNorm uses the statistics of each batch.
        Prediction uses the running ones.
      scales: how many sizes of the image are scored and averaged, each half of the one before (nearest neighbours, as the
        authors' code).
      top: fraction of the positions with the largest |score| whose mean is the image's score (eq. 3), in (0, 1].
      margin: a of eq. 5.
      num_reference: l, draws from the prior N(0, 1) at every step (eq. 4).
      anomaly_fraction: fraction of a batch that is labelled anomalies, drawn with replacement.
      rotation: largest rotation of a training image in degrees, in either direction (nearest neighbours, black outside).
      steps, learning_rate, weight_decay, clip_norm, decay_every: Adam's. The norm of the gradient is clipped, then the L2
        term is added. The rate drops to a tenth after every `decay_every` steps (10 epochs).
      quantile, sigma: of the map, see `saliency`; sigma in pixels of the input, 0 = off.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or a backbone whose BatchNorm cannot be
        trained.
    """
    layers = check_layers(backbone, layers)
    check_options("(0, 1]", top=top, quantile=quantile)
    check_options("(0, 1)", anomaly_fraction=anomaly_fraction)
    check_options("[1, inf)", scales=scales, steps=steps, decay_every=decay_every)
    check_options("[2, inf)", num_reference=num_reference)
    check_options("(0, inf)", margin=margin, learning_rate=learning_rate, clip_norm=clip_norm)
    check_options("[0, inf)", rotation=rotation, weight_decay=weight_decay, sigma=sigma)

    def augment(rng, image, draw):
        del draw
        return {"rotated": rotate_nearest(image, rng.uniform(-rotation, rotation))}

    def score(variables, frozen, image, valid=None):
        """phi(x) `[B]`, the mean over the scales, and the batch statistics, updated by the rows where `valid` is true."""
        params = variables["params"]
        network = frozen["backbone"]
        if train_backbone:
            network = {**network, "params": params["backbone"], "batch_stats": variables["batch_stats"]["backbone"]}
        total = 0.0
        for scale in range(scales):
            small = image[:, :: 2**scale, :: 2**scale]
            if train_backbone and valid is not None:
                levels, stats = backbone.features(network, small, layers, train=True, valid=valid)
                network = {**network, "batch_stats": stats}
            else:
                levels = backbone.features(network, small, layers)
            grid = levels[0].shape[1:3]
            features = jnp.concatenate([ops.resize(level, grid) for level in levels], axis=-1)
            # |phi| at every position: a 1 x 1 convolution
            scores = jnp.abs(features @ params["conv"]["kernel"] + ops.per_channel(params["conv"]["bias"], features))
            # eq. 3: the K largest, multiple-instance learning
            total += ops.top_mean(scores.reshape(len(scores), -1), top) / scales
        return total, network.get("batch_stats", {})

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
        if not train_backbone:
            return {"params": {"conv": conv}}
        # copies: the frozen variables are not the state's to donate
        params, stats = (jax.tree.map(jnp.array, frozen["backbone"].get(kind, {})) for kind in ("params", "batch_stats"))
        return {"params": {"conv": conv, "backbone": params}, "batch_stats": {"backbone": stats}}

    def loss(key, variables, frozen, batch):
        values, stats = score(variables, frozen, batch.extra["rotated"], batch.valid)
        values = losses.deviation(values, batch.label, draw_reference(key, num_reference), margin)
        changed = {"batch_stats": {"backbone": stats}} if train_backbone else {}
        return losses.mean(values, batch.valid), (changed, {})

    def predict(variables, frozen, batch):
        def total(image):
            values, _ = score(variables, frozen, image)
            # scores do not depend on other images, so the gradient of the sum holds that of each
            return values.sum(), values

        pixels, values = jax.grad(total, has_aux=True)(batch.image)
        # with respect to the image as the network sees it, divided by the standard deviations
        return Prediction(values, saliency(pixels * ops.per_channel(jnp.asarray(IMAGENET_STD), pixels), quantile, sigma))

    def optimizer(spec):
        del spec
        rate = step_decay(learning_rate, 0.1, *np.arange(decay_every, steps, decay_every).tolist())
        return optax.chain(optax.clip_by_global_norm(clip_norm), adam_with_l2(rate, weight_decay))

    return gradient(init_variables, loss, predict, optimizer, steps=steps, anomaly_fraction=anomaly_fraction, augment=augment)


def draw_reference(key: jax.Array, number: int) -> jax.Array:
    """Scores of normal images by the prior, draws from N(0, 1), `[number]` float32 (eq. 4)."""
    return jax.random.normal(key, (number,))


def saliency(gradient: jax.Array, quantile: float, sigma: float) -> jax.Array:
    """The authors' anomaly map: the size of the gradient at each pixel, scaled within the image and blurred.

    Args:
      gradient: `[B, H, W, C]`, d phi / d pixel.
      quantile: the smallest size of an image becomes 0, this quantile and all above it 1.
      sigma: of the Gaussian in pixels; 0 = off.

    Returns:
      `[B, H, W]` in [0, 1]; maps of two images do not compare. Zeros where the gradient is the same everywhere.
    """
    size = jnp.sum(jnp.abs(gradient), axis=-1)
    low = size.min(axis=(1, 2), keepdims=True)
    high = jnp.quantile(size.reshape(size.shape[0], -1), quantile, axis=1)[:, None, None]
    maps = jnp.clip((size - low) / jnp.where(high > low, high - low, 1), 0, 1)
    return ops.gaussian_blur(maps, sigma) if sigma else maps
