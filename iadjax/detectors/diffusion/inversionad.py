"""InversionAD: "Reconstruction-Free Anomaly Detection with Diffusion Models" (Sakai et al., CVPR 2026, arXiv 2504.05662).

A diffusion model learns the features of normal images. An image's features are inverted to noise in a few deterministic steps,
and never restored. Normal features end where Gaussian noise lies, anomalous ones elsewhere.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.averaged import Averaged, averaged_step, copy_averaged, init_averaged
from iadjax.detectors.families.moments import Moments, merged, no_moments, standardized
from iadjax.detectors.families.options import check_multiple, check_options
from iadjax.errors import UserError
from iadjax.nn.diffusion import (
    ddim_coefficients,
    ddim_step,
    noise_like,
    noise_schedule,
    noised,
    respaced,
    times_like,
)
from iadjax.nn.dit import DiT

__all__ = ["Inverting", "inversionad"]


class Inverting(NamedTuple):
    """The state.

    Attributes:
      network: finds the noise in features.
      scores: of the training images, the moments of both parts of the score.
    """

    network: Averaged
    scores: Moments


def inversionad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("stage1", "stage2", "stage3", "stage5"),
    stride: int = 16,
    width: int = 2048,
    depth: int = 16,
    heads: int = 8,
    times: int = 1000,
    inversion_steps: int = 3,
    epochs: int = 300,
    first_rate: float = 1e-6,
    learning_rate: float = 5e-5,
    last_rate: float = 1e-6,
    warmup_epochs: int = 40,
    clip_norm: float = 1.0,
    decay: float = 0.0,
) -> Detector:
    """Builds InversionAD.

    Map: Euclidean norm of the features inverted to noise, at each position.

    The authors (github.com/SkyShunsuke/InversionAD, MIT) scale both parts of the score to [0, 1] over the test images of each
    category. Here they are standardised by the training images, so that a score does not depend on other images.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: its levels, resized to one grid.
      stride: pixels of the image for each position of the grid.
      width, depth, heads: of the diffusion transformer; the width is a multiple of 4 and of the heads.
      times: T of the linear noise schedule.
      inversion_steps: of DDIM from the features to noise.
      epochs: passes over the images.
      first_rate, learning_rate, last_rate, warmup_epochs: of AdamW without weight decay: the rate rises linearly, then falls as
        a cosine. The authors' configuration has a last rate of 5e-6, which their code does not read.
      clip_norm: largest norm of the gradient; 0: not clipped.
      decay: of the running average of the weights, which predicts; 0: the weights themselves, as in the authors' command.
        Their code keeps an average of 0.999 too.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", stride=stride, depth=depth, heads=heads, times=times, epochs=epochs)
    check_multiple(math.lcm(4, heads), width=width)
    check_options(f"[1, {times}]", inversion_steps=inversion_steps)
    rates = {"first_rate": first_rate, "learning_rate": learning_rate, "last_rate": last_rate}
    check_options("[0, inf)", clip_norm=clip_norm, **rates)
    check_options("[0, 1)", decay=decay)
    check_options("[0, inf)", warmup_epochs=warmup_epochs)
    if warmup_epochs >= epochs:
        raise UserError(f"detector.warmup_epochs must be below epochs={epochs}, got {warmup_epochs}")
    network, schedule = DiT(width, depth, heads), noise_schedule(times)
    # from each time to the next one, and from the last to pure noise
    chosen = respaced(times, inversion_steps)
    left = np.append(schedule.alpha_bar[chosen], 0.0)
    coefficients = ddim_coefficients(left[:-1], left[1:])

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        grid = tuple(max(1, side // stride) for side in image.shape[1:3])
        return jnp.concatenate([ops.resize(level, grid) for level in levels], axis=-1)

    def optimizer(spec):
        steps = spec.steps_per_epoch
        rate = optax.warmup_cosine_decay_schedule(first_rate, learning_rate, warmup_epochs * steps, epochs * steps, last_rate)
        clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
        return optax.chain(*clip, optax.adamw(rate, weight_decay=0.0))

    def init(key, frozen, spec):
        del frozen
        variables = network.init(key, jnp.zeros((1, *spec.features.shape[1:])), jnp.zeros(1, jnp.int32))
        return Inverting(init_averaged(variables, optimizer(spec)), no_moments(2))

    def invert(params, x):
        """Section 3.3: features to noise."""
        rows, times_of = jnp.asarray(coefficients, x.dtype), jnp.asarray(chosen)

        def step(i, x):
            return ddim_step(rows[i], x, network.apply({"params": params}, x, jnp.full(len(x), times_of[i])))

        return jax.lax.fori_loop(0, inversion_steps, step, x)

    def parts(state, features):
        """The norms `[B, h, w]`, and both parts of the score `[B, 2]`."""
        z = invert(state.network.average, features)
        norm = jnp.linalg.norm(z, axis=-1)
        spread = norm.max(axis=(1, 2)) - norm.min(axis=(1, 2))
        # -log p of a standard normal distribution, up to its constant, which standardising takes away
        unlikely = 0.5 * jnp.sum(z**2, axis=(1, 2, 3))
        return norm, jnp.stack([spread, unlikely], axis=-1)

    def phases(spec):
        def learn(key, state, frozen, batch):
            del frozen
            keys, x = jax.random.split(key), batch.features
            t, epsilon = times_like(keys[0], x, 0, times), noise_like(keys[1], x)

            def objective(variables):
                found = network.apply(variables, noised(schedule, x, t, epsilon), t)
                return losses.mean(losses.mse(found, epsilon), batch.valid), ({}, {})

            trained, info = averaged_step(state.network, objective, optimizer(spec), decay)
            return Inverting(trained, state.scores), info

        def calibrate(key, state, frozen, batch):
            del key, frozen
            found = merged(state.scores, parts(state, batch.features)[1][:, None, None], batch.valid)
            return Inverting(state.network, found), {"images": found.count}

        return Phase("train", learn, epochs=epochs), Phase("calibrate", calibrate)

    def predict(state, frozen, batch):
        del frozen
        norm, both = parts(state, batch.features)
        score = jnp.sum(standardized(both[:, None, None], state.scores), axis=-1)[:, 0, 0]
        return Prediction(score, ops.anomaly_map(norm, batch.image.shape[1:3]))

    def warm_start(fresh, old):
        return Inverting(copy_averaged(fresh.network, old.network), fresh.scores)

    return Detector(init, phases, predict, embed, warm_start=warm_start)
