"""SimpleNet: "A Simple Network for Image Anomaly Detection and Localization" (Liu et al., CVPR 2023, arXiv 2303.15140).

One linear layer adapts the features of normal images to the domain. A discriminator tells them from the same features with
added Gaussian noise.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import adam_with_l2, check_schedule, rate_schedule
from iadjax.nn.discriminator import Adaptor, Discriminator
from iadjax.synthesis.feature_noise import gaussian_noise

__all__ = ["simplenet"]


def simplenet(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3"),
    patch_size: int = 3,
    pretrain_dimension: int = 1536,
    target_dimension: int = 1536,
    hidden: int = 1024,
    noise_std: float = 0.015,
    th: float = 0.5,
    epochs: int = 160,
    adaptor_rate: float = 1e-4,
    discriminator_rate: float = 2e-4,
    weight_decay: float = 1e-5,
    schedule: str = "constant",
    warmup: float = 0.0,
    sigma: float = 4.0,
) -> Detector:
    """Builds SimpleNet.

    Map: negative output of the discriminator, without bounds, smoothed.

    Args:
      backbone: the feature extractor F; its variables are `frozen["backbone"]`.
      layers: its levels; the grid of the first one is the grid of the patches.
      patch_size, pretrain_dimension, target_dimension: of the patch embedding (`ops.patch_embedding`, PatchCore's).
      hidden: channels inside the discriminator; 1024 in the authors' code, as many as the features in the paper.
      noise_std: sigma of the noise that makes anomalous features (section 3.3).
      th: truncation th+ = -th- of the loss (eq. 7).
      epochs: passes over the images, 40 times 4 in the authors' code.
      adaptor_rate: of AdamW, which trains the adaptor with PyTorch's default weight decay 1e-2.
      discriminator_rate, weight_decay: of Adam, which trains the discriminator, with the L2 term in the gradient.
      schedule, warmup: of both rates over the whole run, see `families.schedules.rate_schedule`. The authors' code has a
        cosine, which is off by default.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    dimensions = {"pretrain_dimension": pretrain_dimension, "target_dimension": target_dimension, "hidden": hidden}
    check_options("[1, inf)", epochs=epochs, **dimensions)
    rates = {"adaptor_rate": adaptor_rate, "discriminator_rate": discriminator_rate}
    check_options("(0, inf)", noise_std=noise_std, th=th)
    check_options("[0, inf)", weight_decay=weight_decay, sigma=sigma, **rates)
    check_odd(patch_size=patch_size)
    check_schedule(schedule, warmup)
    # G of section 3.2; D of section 3.4, positive for normal features
    adaptor, discriminator = Adaptor(), Discriminator(hidden)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        return ops.patch_embedding(levels, patch_size, pretrain_dimension, target_dimension)

    def adapt(variables, features):
        return adaptor.apply({"params": variables["params"]["adaptor"]}, features)

    def judge(variables, features, **options):
        own = {"params": variables["params"]["discriminator"], "batch_stats": variables["batch_stats"]}
        return discriminator.apply(own, features, **options)

    def init_variables(key, frozen, spec):
        keys = jax.random.split(key)
        features = jnp.zeros((1, 1, 1, target_dimension))
        second = discriminator.init(keys[1], features)
        networks = {"adaptor": adaptor.init(keys[0], features)["params"], "discriminator": second["params"]}
        return {"params": networks, "batch_stats": second["batch_stats"]}

    def loss(key, variables, frozen, batch):
        del frozen
        # eq. 3-5: q = G(F(x)), and q + epsilon with epsilon from N(0, sigma^2)
        q = adapt(variables, batch.features)
        noised = gaussian_noise(key, q, noise_std)
        # one BatchNorm over both, as in the authors' code
        both, valid = jnp.concatenate([q, noised]), jnp.concatenate([batch.valid, batch.valid])
        scores, changed = judge(variables, both, valid=valid, mutable="batch_stats")
        true, fake = jnp.split(scores, 2)
        values = losses.truncated_l1(true, jnp.zeros_like(true), th) + losses.truncated_l1(fake, jnp.ones_like(fake), th)
        return losses.mean(values, batch.valid), (changed, {})

    def predict(variables, frozen, batch):
        del frozen
        # eq. 8: s = -D(q); the image's score is that of its worst patch, before the map is made
        s = -judge(variables, adapt(variables, batch.features))
        return Prediction(s.max(axis=(1, 2)), ops.anomaly_map(s, batch.image.shape[1:3], sigma))

    def optimizer(spec):
        steps = epochs * spec.steps_per_epoch
        first, second = (rate_schedule(schedule, rate, steps, warmup) for rate in (adaptor_rate, discriminator_rate))
        first, second = optax.adamw(first, weight_decay=1e-2), adam_with_l2(second, weight_decay)
        # each name labels its whole subtree
        return optax.multi_transform({"adaptor": first, "discriminator": second}, {name: name for name in _NETWORKS})

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)


_NETWORKS = ("adaptor", "discriminator")
