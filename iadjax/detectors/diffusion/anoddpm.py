"""AnoDDPM: "AnoDDPM: Anomaly Detection with Denoising Diffusion Probabilistic Models using Simplex Noise" (Wyatt et al., CVPR
Workshops 2022).

A diffusion model learns to remove simplex noise from normal images. An image is noised part of the way and restored. Simplex
noise has coarse structure, so that it covers large anomalies too.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.averaged import Averaged, averaged_step, copy_averaged, init_averaged
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.nn.adm import AdmUNet, check_sides
from iadjax.nn.diffusion import (
    ancestral_step,
    ddim_coefficients,
    ddim_step,
    noise_like,
    noise_schedule,
    noised,
    respaced,
    times_like,
)
from iadjax.parallel.axis import own_rows

__all__ = ["Diffusion", "anoddpm"]


class Diffusion(NamedTuple):
    """The state.

    Attributes:
      network: finds the noise in images.
      key: `[2]` uint32, the data of the key that draws the noise of prediction, the same for all images.
    """

    network: Averaged
    key: jax.Array


def anoddpm(
    *,
    width: int = 128,
    multipliers: Sequence[float] = (),
    blocks: int = 2,
    attention: Sequence[int] = (32, 16, 8),
    heads: int = 2,
    dropout: float = 0.0,
    times: int = 1000,
    schedule: str = "linear",
    noise: str = "simplex",
    octaves: int = 6,
    persistence: float = 0.8,
    wavelength: float = 64.0,
    train_times: int = 800,
    steps: int = 300_000,
    learning_rate: float = 1e-4,
    weight_decay: float = 0.0,
    clip_norm: float = 1.0,
    decay: float = 0.9999,
    start: int = 250,
    sampling_steps: int = 0,
    samples: int = 1,
    top: float = 0.01,
) -> Detector:
    """Builds AnoDDPM.

    Map: squared difference of image and restored image in [-1, 1], the mean over colours.

    The constants are those of the authors' code (github.com/Julian-Wyatt/AnoDDPM, MIT). It has maps only; the score is ours.

    Args:
      width, blocks, attention, heads, dropout: of the network, see `nn.adm.AdmUNet`.
      multipliers: of its levels; (): those of the authors for the side of the images.
      times, schedule: T and the variances, see `nn.diffusion.noise_schedule`.
      noise: "simplex" or "gaussian", in training and in restoring.
      octaves, persistence, wavelength: of simplex noise (section 3.2); the wavelength in pixels.
      train_times: training draws times below this.
      steps: of training; the authors count an epoch as 100 images, and take 3,000 with batches of one.
      learning_rate, weight_decay: of AdamW.
      clip_norm: largest norm of the gradient; 0: not clipped.
      decay: of the running average of the weights, which predicts.
      start: lambda, how many steps of noise an image gets before it is restored.
      sampling_steps: steps of restoring: 0: all of them, as the authors do; else so many of DDIM with eta = 1.
      samples: restored images whose mean is compared; 5 in one of the authors' experiments.
      top: the image's score is the mean of this fraction of its pixels, the largest ones.

    Raises:
      UserError: an option out of its range; in fitting: sides of images that the levels cannot halve.
    """
    check_options("[1, inf)", width=width, blocks=blocks, heads=heads, times=times, octaves=octaves, steps=steps)
    check_options("(0, inf)", wavelength=wavelength, learning_rate=learning_rate)
    check_options("[0, inf)", persistence=persistence, weight_decay=weight_decay, clip_norm=clip_norm)
    check_options("[0, 1)", dropout=dropout, decay=decay)
    check_options("(0, 1]", top=top)
    check_options("[1, inf)", samples=samples, train_times=train_times, start=start)
    check_options("[0, inf)", sampling_steps=sampling_steps)
    if max(train_times, start) > times or sampling_steps > start:
        raise UserError(
            f"detector.train_times and start are at most times={times}, and sampling_steps at most start; got {train_times}, "
            f"{start}, {sampling_steps}"
        )
    if noise not in ("simplex", "gaussian"):
        raise UserError(f"detector.noise must be 'simplex' or 'gaussian', got {noise!r}")
    network = AdmUNet(width, tuple(multipliers), blocks, tuple(attention), heads, dropout)
    variances = noise_schedule(times, schedule)
    # the times of restoring, the latest first
    chosen = respaced(start, sampling_steps or start)[::-1]
    left = np.append(variances.alpha_bar[chosen], 1.0)
    coefficients = ddim_coefficients(left[:-1], left[1:], eta=1.0)

    def optimizer():
        clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
        return optax.chain(*clip, optax.adamw(learning_rate, weight_decay=weight_decay))

    def field(key, size, t):
        return ops.simplex_field(key, size, t, octaves, persistence, wavelength)

    def draw(key, x, t):
        """Noise for every row of `x`, at its own time."""
        if noise == "gaussian":
            return noise_like(key, x)
        keys = own_rows(lambda rows: jax.random.split(key, rows), len(x))
        # in turn: one field takes a hundred times its own memory
        return jax.lax.map(lambda pair: field(pair[0], x.shape[1:3], pair[1]), (keys, t))

    def draw_one(key, shape, t):
        """Noise that all rows share."""
        return (field(key, shape[1:3], t) if noise == "simplex" else jax.random.normal(key, shape[1:]))[None]

    def init(key, frozen, spec):
        del frozen
        check_sides(spec.image_shape, multipliers)
        keys = jax.random.split(key)
        variables = network.init(keys[0], jnp.zeros((1, *spec.image_shape)), jnp.zeros(1, jnp.int32))
        return Diffusion(init_averaged(variables, optimizer()), jax.random.key_data(keys[1]))

    def update(key, state, frozen, batch):
        del frozen
        keys = jax.random.split(key, 3)
        x = 2 * batch.image - 1
        t = times_like(keys[0], x, 0, train_times)
        epsilon = draw(keys[1], x, t)

        def objective(variables):
            found = network.apply(variables, noised(variances, x, t, epsilon), t, True, rngs={"dropout": keys[2]})
            return losses.mean(losses.mse(found, epsilon), batch.valid), ({}, {})

        trained, info = averaged_step(state.network, objective, optimizer(), decay)
        return Diffusion(trained, state.key), info

    def restore(key, params, x):
        """One restored image for each of `x`, by noise that depends on the key alone."""
        rows, times_of = jnp.asarray(coefficients, x.dtype), jnp.asarray(chosen)

        def step(i, x):
            t = times_of[i]
            predicted = network.apply({"params": params}, x, jnp.full(len(x), t))
            more = draw_one(jax.random.fold_in(key, t), x.shape, t)
            if sampling_steps:
                return ddim_step(rows[i], x, predicted, more)
            return ancestral_step(variances, x, t, predicted, more)

        first = draw_one(jax.random.fold_in(key, times), x.shape, times_of[0])
        return jax.lax.fori_loop(0, len(chosen), step, noised(variances, x, times_of[0], first))

    def predict(state, frozen, batch):
        del frozen
        x, key = 2 * batch.image - 1, jax.random.wrap_key_data(state.key)

        def add(i, total):
            return total + restore(jax.random.fold_in(key, i), state.network.average, x)

        restored = jax.lax.fori_loop(0, samples, add, jnp.zeros_like(x)) / samples
        maps = jnp.mean((restored - x) ** 2, axis=-1)
        return Prediction(ops.top_mean(maps.reshape(len(maps), -1), top), maps)

    def warm_start(fresh, old):
        return Diffusion(copy_averaged(fresh.network, old.network), jnp.array(old.key))

    return Detector(init, lambda spec: (Phase("train", update, steps=steps),), predict, warm_start=warm_start)
