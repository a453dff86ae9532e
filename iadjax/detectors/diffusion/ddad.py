"""DDAD: "Anomaly Detection with Conditioned Denoising Diffusion Models" (Mousakhan et al., GCPR 2024, arXiv 2305.15956).

A diffusion model restores a noised image, guided towards the image itself. Image and restored image are compared pixel by
pixel, and by features that were adapted to the domain with restored normal images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.adm import AdmUNet, check_sides
from iadjax.nn.diffusion import (
    ddim_coefficients,
    ddim_step,
    guided_noise,
    noise_like,
    noise_schedule,
    noised,
    times_like,
)
from iadjax.parallel.axis import all_rows

__all__ = ["Networks", "adaptation_loss", "ddad"]


class Networks(NamedTuple):
    """The state.

    Attributes:
      denoiser: finds the noise in images.
      features: the backbone, adapted.
      largest: `[2]`, the largest feature distance and the largest pixel distance of training images.
      key: `[2]` uint32, the data of the key that draws the noise of prediction, the same for all images.
    """

    denoiser: Trained
    features: Trained
    largest: jax.Array
    key: jax.Array


def ddad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    compared: Sequence[str] = ("layer2", "layer3"),
    width: int = 64,
    multipliers: Sequence[float] = (),
    blocks: int = 2,
    attention: Sequence[int] = (32, 16, 8),
    heads: int = 4,
    dropout: float = 0.0,
    times: int = 1000,
    epochs: int = 2000,
    learning_rate: float = 3e-4,
    weight_decay: float = 0.05,
    start: int = 250,
    skip: int = 25,
    eta: float = 1.0,
    guidance: float = 2.0,
    adapt_guidance: float = 3.0,
    adapt_epochs: int = 4,
    adapt_rate: float = 1e-4,
    distillation: float = 0.1,
    pixel_weight: float = 1.0,
    sigma: float = 4.0,
) -> Detector:
    """Builds DDAD.

    Map: cosine distance of features, summed over the layers, plus the pixel distance scaled to its range, smoothed.

    The authors (github.com/arimousa/DDAD, MIT) scale the pixel distance by the largest values of the test batch. Here they are
    those of the training images, so that a score does not depend on other images. They choose `guidance`, the epochs of both
    networks and, by data set, `pixel_weight` and `distillation` for each category.

    Args:
      backbone: phi, wide ResNet-101 in the paper; its variables are `frozen["backbone"]`, from which adaptation begins.
      layers: its levels that are adapted.
      compared: those of them that are compared.
      width, multipliers, blocks, attention, heads, dropout: of the denoising network, see `nn.adm.AdmUNet`; multipliers ():
        those for the side of the images. DDAD-S has a width of 32, 2 heads and a dropout of 0.3.
      times: T of the linear noise schedule.
      epochs, learning_rate, weight_decay: of Adam for the denoising network, the decay as an L2 term in the gradient.
      start: T', the time to which an image is noised.
      skip: restoring takes the multiples of it below `start`; so its steps are start / skip.
      eta: of DDIM; 1: as much new noise as DDPM.
      guidance: w of eq. 6, in prediction.
      adapt_guidance, adapt_epochs, adapt_rate: w, the passes and the rate of AdamW in adaptation; 0 epochs: none.
      distillation: lambda_DL, weight of the distances to the features that are not adapted (eq. 11).
      pixel_weight: v of eq. 10.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in fitting: sides of images that the
        levels cannot halve.
    """
    layers = check_layers(backbone, layers)
    if not compared or set(compared) - set(layers):
        raise UserError(f"detector.compared must be some of detector.layers, {', '.join(layers)}; got {tuple(compared)}")
    check_options("[1, inf)", width=width, blocks=blocks, heads=heads, times=times, epochs=epochs, skip=skip)
    check_options(f"[1, {times})", start=start)
    check_options("[0, 1)", dropout=dropout)
    check_options("[0, 1]", eta=eta)
    weights = {"distillation": distillation, "pixel_weight": pixel_weight, "sigma": sigma}
    rates = {"learning_rate": learning_rate, "weight_decay": weight_decay, "adapt_rate": adapt_rate}
    check_options("[0, inf)", guidance=guidance, adapt_guidance=adapt_guidance, adapt_epochs=adapt_epochs, **weights, **rates)
    network = AdmUNet(width, tuple(multipliers), blocks, tuple(attention), heads, dropout)
    schedule, chosen = noise_schedule(times), np.arange(0, start, skip)[::-1]
    left = np.append(schedule.alpha_bar[chosen], 1.0)
    coefficients = ddim_coefficients(left[:-1], left[1:], eta)
    # PyTorch's default weight decay of AdamW
    denoise, adapt = adam_with_l2(learning_rate, weight_decay), optax.adamw(adapt_rate, weight_decay=1e-2)

    def init(key, frozen, spec):
        check_sides(spec.image_shape, multipliers)
        keys = jax.random.split(key)
        first = network.init(keys[0], jnp.zeros((1, *spec.image_shape)), jnp.zeros(1, jnp.int32))
        # copies: the frozen variables are not the state's to donate
        own = {kind: jax.tree.map(jnp.array, frozen["backbone"].get(kind, {})) for kind in ("params", "batch_stats")}
        trained = init_trained(first, denoise), init_trained(own, adapt)
        return Networks(*trained, jnp.zeros(2), jax.random.key_data(keys[1]))

    def represent(variables, frozen, x, valid=None):
        """Levels of images in [-1, 1], and the running statistics, moved where `valid` is given."""
        own, image = {**frozen["backbone"], **variables}, (x + 1) / 2
        if valid is None:
            return backbone.features(own, image, layers), variables["batch_stats"]
        return backbone.features(own, image, layers, train=True, valid=valid)

    def restore(params, x, target, weight, draw):
        """Algorithm 2: `x` is noised and restored, guided towards the target; `draw(i)` is the noise of step i."""
        rows, times_of = jnp.asarray(coefficients, x.dtype), jnp.asarray(chosen)

        def step(i, x):
            t = times_of[i]
            found = network.apply({"params": params}, x, jnp.full(len(x), t))
            hat = guided_noise(schedule, x, t, found, noised(schedule, target, t, found), weight)
            return ddim_step(rows[i], x, hat, draw(i))

        # noised to the time `start`, although the first step is one of an earlier time, as in the authors' code
        return jax.lax.fori_loop(0, len(chosen), step, noised(schedule, x, jnp.int32(start), draw(len(chosen))))

    def learn(key, state, frozen, batch):
        del frozen
        keys, x = jax.random.split(key, 3), 2 * batch.image - 1
        t, epsilon = times_like(keys[0], x, 0, times), noise_like(keys[1], x)

        def objective(variables):
            found = network.apply(variables, noised(schedule, x, t, epsilon), t, True, rngs={"dropout": keys[2]})
            # eq. 3: the sum over pixels, as in the authors' code
            return losses.mean(jnp.sum((found - epsilon) ** 2, axis=(1, 2, 3)), batch.valid), ({}, {})

        trained, info = train_step(state.denoiser, objective, denoise)
        return state._replace(denoiser=trained), info

    def tune(key, state, frozen, batch):
        target, other = 2 * batch.image - 1, 2 * batch.extra["other"] - 1
        draw = lambda i: noise_like(jax.random.fold_in(key, i), target)  # noqa: E731
        restored = restore(state.denoiser.variables["params"], other, target, adapt_guidance, draw)
        before = {kind: frozen["backbone"].get(kind, {}) for kind in ("params", "batch_stats")}
        fixed = [represent(before, frozen, x)[0] for x in (target, restored)]

        def objective(variables):
            first, stats = represent(variables, frozen, restored, batch.valid)
            second, stats = represent({**variables, "batch_stats": stats}, frozen, target, batch.valid)
            values = adaptation_loss(first, second, *fixed, distillation)
            return losses.mean(values, batch.valid), ({"batch_stats": stats}, {})

        trained, info = train_step(state.features, objective, adapt)
        return state._replace(features=trained), info

    def distances(state, frozen, image):
        """The distances of features and of pixels, `[B, H, W]` each."""
        x, key = 2 * image - 1, jax.random.wrap_key_data(state.key)
        # one noise image for all
        draw = lambda i: jax.random.normal(jax.random.fold_in(key, i), (1, *x.shape[1:]))  # noqa: E731
        restored = restore(state.denoiser.variables["params"], x, x, guidance, draw)
        pairs = zip(layers, *(represent(state.features.variables, frozen, each)[0] for each in (x, restored)), strict=True)
        total = jnp.zeros(x.shape[:3])
        for layer, *levels in pairs:
            if layer in compared:
                first, second = (ops.unit(ops.average_pool(each)) for each in levels)
                total += ops.anomaly_map(1 - jnp.sum(first * second, axis=-1), x.shape[1:3], align_corners=True)
        return total, jnp.abs(x - restored).mean(axis=-1)

    def calibrate(key, state, frozen, batch):
        del key
        found = [jnp.where(batch.valid, each.max(axis=(1, 2)), 0) for each in distances(state, frozen, batch.image)]
        largest = jnp.maximum(state.largest, jnp.stack([all_rows(each).max() for each in found]))
        return state._replace(largest=largest), {"features": largest[0], "pixels": largest[1]}

    def predict(state, frozen, batch):
        features, pixels = distances(state, frozen, batch.image)
        # eq. 10
        maps = features + pixel_weight * state.largest[0] / jnp.maximum(state.largest[1], 1e-12) * pixels
        maps = ops.kernel_blur(maps, sigma, 2 * int(4 * sigma + 0.5) + 1) if sigma else maps
        return Prediction(maps.max(axis=(1, 2)), maps)

    def warm_start(fresh, old):
        networks = (copy_variables(getattr(fresh, name), getattr(old, name)) for name in ("denoiser", "features"))
        return Networks(*networks, fresh.largest, jnp.array(old.key))

    def partner(rng, image, draw):
        del rng, image
        return {"other": draw()}

    phases = [Phase("denoise", learn, epochs=epochs)]
    phases += [Phase("adapt", tune, epochs=adapt_epochs, augment=partner)] if adapt_epochs else []
    return Detector(init, lambda spec: (*phases, Phase("calibrate", calibrate)), predict, warm_start=warm_start)


def adaptation_loss(
    restored: Sequence[jax.Array],
    target: Sequence[jax.Array],
    fixed_target: Sequence[jax.Array],
    fixed_restored: Sequence[jax.Array],
    distillation: float,
) -> jax.Array:
    """Eq. 11, `[B]`: adapted features of restored image and target agree, and both stay near those that are not adapted.

    Every distance is 1 - cos of all features of an image at a level `[B, h, w, C]`; they are summed over the levels.
    """
    total = 0.0
    for a, b, c, d in zip(restored, target, fixed_target, fixed_restored, strict=True):
        near = losses.cosine_distance(b, c) + losses.cosine_distance(a, d)
        total += losses.cosine_distance(a, b) + distillation * near
    return total
