"""GLASS: "A Unified Anomaly Synthesis Strategy with Gradient Ascent for Industrial Anomaly Detection and Localization" (Chen
et al., ECCV 2024, arXiv 2407.09359).

A discriminator tells the adapted features of normal patches from two kinds of synthetic ones. Global anomalies are noised
features that gradient ascent moves to where the discriminator finds them anomalous, within a shell around normal features.
Local anomalies are features of textures that are drawn into the image.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.discriminator import Adaptor, Discriminator
from iadjax.parallel.axis import all_rows, all_sum
from iadjax.synthesis.feature_noise import gaussian_noise
from iadjax.synthesis.perlin_texture import combined_anomaly
from iadjax.synthesis.source import image_source

__all__ = ["Glass", "glass", "on_grid", "project"]


class Glass(NamedTuple):
    """The state.

    Attributes:
      trained: adaptor and discriminator.
      count: float32 scalar; images in the mean.
      mean: `[h, w, C]`, of the features at each position.
      centre: `[h, w, C]`, the adapted mean, renewed at the beginning of each epoch.
      step: int32 scalar; steps of training so far.
    """

    trained: Trained
    count: jax.Array
    mean: jax.Array
    centre: jax.Array
    step: jax.Array


def glass(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3"),
    patch_size: int = 3,
    pretrain_dimension: int = 1536,
    target_dimension: int = 1536,
    hidden: int = 1024,
    distribution: str = "hypersphere",
    noise_std: float = 0.015,
    ascent_steps: int = 20,
    ascent_rate: float = 1e-3,
    project_every: int = 5,
    radius: float = 0.75,
    hard: float = 0.5,
    textures: str = "",
    epochs: int = 640,
    limit: int = 392,
    adaptor_rate: float = 1e-4,
    discriminator_rate: float = 2e-4,
    weight_decay: float = 1e-5,
    sigma: float = 4.0,
) -> Detector:
    """Builds GLASS.

    Map: probability that a patch is anomalous, in [0, 1], smoothed.

    The authors (github.com/cqylunlun/GLASS, MIT) choose the distribution for each category, and draw local anomalies within
    published masks of the foreground. Here textures are drawn anywhere.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: its levels; the grid of the first one is the grid of the patches.
      patch_size, pretrain_dimension, target_dimension: of the patch embedding (`ops.patch_embedding`, PatchCore's).
      hidden: channels inside the discriminator.
      distribution: of normal features (section 3.3). "hypersphere": global anomalies lie in [r, 2 r] about the centre of their
        position, local ones in [2 r, 4 r]. "manifold": global ones lie in [0.5, 1] about their own normal feature.
      noise_std: standard deviation of the noise that ascent begins with.
      ascent_steps, ascent_rate: of the gradient ascent (eq. 3); 0 steps: noise alone.
      project_every: steps between projections into the shell (eq. 4).
      radius: r is this quantile of the distances of normal features to their centres.
      hard: patches of images with local anomalies whose error is below this quantile do not count (eq. 7); 0: all count.
      textures: folder of images for local anomalies, DTD in the paper; "" draws textures.
      epochs, limit: an epoch ends with the pass, or with the batch in which more than so many images were seen.
      adaptor_rate, weight_decay: of Adam, which trains the adaptor, with the L2 term in the gradient.
      discriminator_rate: of AdamW, which trains the discriminator, with PyTorch's default weight decay 1e-2.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in fitting: no image in `textures`.
    """
    layers = check_layers(backbone, layers)
    if distribution not in ("hypersphere", "manifold"):
        raise UserError(f"detector.distribution must be 'hypersphere' or 'manifold', got {distribution!r}")
    dimensions = {"pretrain_dimension": pretrain_dimension, "target_dimension": target_dimension, "hidden": hidden}
    check_options("[1, inf)", epochs=epochs, limit=limit, project_every=project_every, **dimensions)
    check_options("(0, inf)", noise_std=noise_std, ascent_rate=ascent_rate)
    rates = {"adaptor_rate": adaptor_rate, "discriminator_rate": discriminator_rate}
    check_options("[0, inf)", ascent_steps=ascent_steps, weight_decay=weight_decay, sigma=sigma, **rates)
    check_options("[0, 1)", radius=radius, hard=hard)
    check_odd(patch_size=patch_size)
    sphere = distribution == "hypersphere"
    adaptor, discriminator, source = Adaptor(), Discriminator(hidden), image_source(textures)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        return ops.patch_embedding(levels, patch_size, pretrain_dimension, target_dimension)

    def adapt(variables, features):
        return adaptor.apply({"params": variables["params"]["adaptor"]}, features)

    def judge(variables, stats, features, valid=None):
        """Logits of patches, and the running statistics, moved where `valid` is given."""
        own = {"params": variables["params"]["discriminator"], "batch_stats": stats}
        if valid is None:
            return discriminator.apply(own, features), stats
        logits, changed = discriminator.apply(own, features, valid, mutable="batch_stats")
        return logits, changed["batch_stats"]

    def cross_entropy(logits, label, valid):
        return losses.mean(jnp.mean(nn.softplus(-logits if label else logits), axis=(1, 2)), valid)

    def optimizer():
        parts = {
            "adaptor": adam_with_l2(adaptor_rate, weight_decay),
            "discriminator": optax.adamw(discriminator_rate, weight_decay=1e-2),
        }
        # each name labels its whole subtree
        return optax.multi_transform(parts, {name: name for name in parts})

    def init(key, frozen, spec):
        del frozen
        keys = jax.random.split(key)
        shape = spec.features.shape[1:]
        features = jnp.zeros((1, 1, 1, shape[-1]))
        second = discriminator.init(keys[1], features)
        params = {"adaptor": adaptor.init(keys[0], features)["params"], "discriminator": second["params"]}
        trained = init_trained({"params": params, "batch_stats": second["batch_stats"]}, optimizer())
        return Glass(trained, jnp.zeros(()), jnp.zeros(shape), jnp.zeros(shape), jnp.zeros((), jnp.int32))

    def average(key, state, frozen, batch):
        del key, frozen
        count, mean = running_mean(state.count, state.mean, batch.features, batch.valid)
        return Glass(state.trained, count, mean, state.centre, state.step), {"images": count}

    def ascend(variables, stats, true, noised, centre, r, valid):
        """Eq. 3 and 4: the global anomalies, and the running statistics. Each step's direction is a constant of the loss."""
        fixed, target = jax.lax.stop_gradient((variables, true))
        about, low, high = (centre, r, 2 * r) if sphere else (true, 0.5, 1.0)

        def step(carry, i):
            x, stats = carry

            def anomalous(x):
                logits, changed = judge(fixed, stats, jnp.concatenate([target, x]), valid)
                return cross_entropy(jnp.split(logits, 2)[1], 1, jnp.split(valid, 2)[1]), changed

            gradient, stats = jax.grad(anomalous, has_aux=True)(jax.lax.stop_gradient(x))
            direction = gradient / (jnp.linalg.norm(gradient, axis=-1, keepdims=True) + 1e-10)
            x = x + ascent_rate * jax.lax.stop_gradient(direction)
            return (jnp.where((i + 1) % project_every == 0, project(x, about, low, high), x), stats), None

        return jax.lax.scan(step, (noised, stats), jnp.arange(ascent_steps))[0]

    def objective(key, variables, frozen, batch, centre):
        true, fake = adapt(variables, batch.features), adapt(variables, embed(frozen, batch.extra["augmented"]))
        mask, stats, both = batch.extra["mask"], variables["batch_stats"], jnp.tile(batch.valid, 2)
        centre, inside = centre[None], mask[..., None] > 0
        # r: of all normal patches of the batch, those of images with local anomalies too
        distance = [jnp.linalg.norm(x - centre, axis=-1) for x in (fake, true)]
        normal = [(mask == 0) & batch.valid[:, None, None], jnp.broadcast_to(batch.valid[:, None, None], mask.shape)]
        r = ops.quantile_where(*all_rows((jnp.concatenate(distance), jnp.concatenate(normal))), radius)
        r = jax.lax.stop_gradient(r)
        noised, stats = ascend(variables, stats, true, gaussian_noise(key, true, noise_std), centre, r, both)
        logits, stats = judge(variables, stats, jnp.concatenate([true, noised]), both)
        logits = jnp.split(logits, 2)
        parts = {f"loss_{name}": cross_entropy(logits[i], i, batch.valid) for i, name in enumerate(("normal", "global"))}
        if sphere:
            fake = jnp.where(inside, project(fake, centre, 2 * r, 4 * r), fake)
        logits, stats = judge(variables, stats, fake, batch.valid)
        p = jax.nn.sigmoid(logits)
        # eq. 7: the hardest patches
        error, valid = (p - mask.astype(p.dtype)) ** 2, jnp.broadcast_to(batch.valid[:, None, None], mask.shape)
        chosen = valid & (error >= ops.quantile_where(*all_rows((error, valid)), hard) if hard else True)
        pairs = jnp.stack([1 - p, p], axis=-1).reshape(-1, 1, 1, 2)
        values = losses.focal_of_probabilities(pairs, mask.reshape(-1, 1, 1)).reshape(p.shape)
        number = jnp.maximum(all_sum(jnp.sum(chosen)), 1).astype(p.dtype)
        parts["loss_local"] = jnp.sum(jnp.where(chosen, values, 0)) / number
        return sum(parts.values()), ({"batch_stats": stats}, parts)

    def phases(spec):
        interval = min(spec.steps_per_epoch, limit // spec.batch_size + 1)
        grid = spec.features.shape[1:3]

        def augment(rng, image, draw):
            del draw
            augmented, mask = combined_anomaly(rng, image, source)
            return {"augmented": augmented, "mask": on_grid(mask, grid)}

        def update(key, state, frozen, batch):
            # the adaptor is linear: it adapts the mean to the mean of adapted features
            renewed = adapt(state.trained.variables, state.mean)
            centre = jnp.where(state.step % interval == 0, renewed, state.centre)
            of = lambda variables: objective(key, variables, frozen, batch, centre)  # noqa: E731
            trained, info = train_step(state.trained, of, optimizer())
            return Glass(trained, state.count, state.mean, centre, state.step + 1), info

        return Phase("average", average), Phase("train", update, steps=epochs * interval, augment=augment)

    def predict(state, frozen, batch):
        del frozen
        variables = state.trained.variables
        logits, _ = judge(variables, variables["batch_stats"], adapt(variables, batch.features))
        p = jax.nn.sigmoid(logits)
        # the image's score is that of its worst patch, before the map is made
        return Prediction(p.max(axis=(1, 2)), ops.anomaly_map(p, batch.image.shape[1:3], sigma))

    def warm_start(fresh, old):
        return fresh._replace(trained=copy_variables(fresh.trained, old.trained))

    return Detector(init, phases, predict, embed, warm_start=warm_start)


def project(x: jax.Array, about: jax.Array, low: jax.Array | float, high: jax.Array | float) -> jax.Array:
    """Eq. 4: features `[..., C]` moved along the line to `about` until their distance to it is in [low, high]."""
    offset = x - about
    distance = optax.safe_norm(offset, 1e-10, axis=-1, keepdims=True)
    return about + jnp.clip(distance, low, high) / (distance + 1e-10) * offset


def on_grid(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """The largest number of each cell of a grid: `[H, W]` to `[h, w]`."""
    for axis, cells in enumerate(grid):
        mask = np.maximum.reduceat(mask, np.arange(cells) * mask.shape[axis] // cells, axis=axis)
    return mask
