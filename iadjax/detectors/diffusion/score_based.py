"""Score-based: "Unsupervised Visual Defect Detection with Score-Based Generative Model" (Teng et al., 2022, arXiv 2211.16092).

A network learns the score, the gradient of the log density of noised normal images. A test image is noised a little, at several
scales. There the score points to the image itself where the image is normal, and elsewhere where it is not.
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
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import step_decay
from iadjax.errors import UserError
from iadjax.nn.adm import AdmUNet, check_sides
from iadjax.nn.diffusion import noise_like
from iadjax.nn.sde import corrector_step, noise_deviation, predictor_step
from iadjax.parallel.axis import own_rows

__all__ = ["Scored", "score_based"]

FIRST = 1e-5
"""The least time of training and of restoring."""


class Scored(NamedTuple):
    """The state.

    Attributes:
      network: finds the noise in images, up to its sign.
      key: `[2]` uint32, the data of the key that draws the noise of prediction, the same for all images.
    """

    network: Averaged
    key: jax.Array


def score_based(
    *,
    width: int = 64,
    multipliers: Sequence[float] = (1, 2, 4, 8),
    blocks: int = 2,
    attention: Sequence[int] = (16, 8),
    heads: int = 4,
    sigma: float = 25.0,
    epochs: int = 3000,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-3,
    decay: float = 0.9999,
    measure: str = "score",
    scales: Sequence[float] = (1e-3, 3e-3, 1e-2),
    draws: int = 3,
    start: float = 0.05,
    sampling_steps: int = 50,
    corrections: int = 1,
    ratio: float = 0.16,
    window: int = 31,
) -> Detector:
    """Builds the score-based detector.

    Map: squared difference of the noise that was added and the noise that the score shows, or of image and restored image,
    averaged over a window.

    No code of the authors is public, and the paper's constants were not to be had. So the network, the scales and the window
    are ours. The SDE, the training and the measure at one scale are those of a relative with code, "Anomaly Detection using
    Score-based Perturbation Resilience" (Shin et al., ICCV 2023), which has one scale of 1e-3. The sampler is that of Song et
    al. (ICLR 2021). The paper says that normal pixels change too when an image is restored, and so prefers the score.

    Args:
      width, multipliers, blocks, attention, heads: of the network, see `nn.adm.AdmUNet`.
      sigma: of the SDE, above 1; see `nn.sde`.
      epochs: passes over the images.
      learning_rate, weight_decay: of AdamW; the rate falls to a tenth after one and again after two thirds of the epochs.
      decay: of the running average of the weights, which predicts.
      measure: "score": the noise that the score shows at each scale; "error": the image restored by the sampler.
      scales: times to which an image is noised for "score".
      draws: noise images at each scale; their maps are averaged.
      start: time to which an image is noised for "error".
      sampling_steps, corrections, ratio: of the sampler: steps of the predictor, steps of the corrector after each, and its
        ratio of signal and noise.
      window: side of the mean filter over the map, odd, 31 for maps of 256 x 256.

    Raises:
      UserError: an option out of its range; in fitting: sides of images that the levels cannot halve.
    """
    check_options("[1, inf)", width=width, blocks=blocks, heads=heads, epochs=epochs, draws=draws)
    check_options("[1, inf)", sampling_steps=sampling_steps)
    check_options("(1, inf)", sigma=sigma)
    check_options("(0, inf)", learning_rate=learning_rate, ratio=ratio)
    check_options("[0, inf)", weight_decay=weight_decay, corrections=corrections)
    check_options("[0, 1)", decay=decay)
    check_options(f"({FIRST}, 1]", start=start)
    check_odd(window=window)
    if measure not in ("score", "error"):
        raise UserError(f"detector.measure must be 'score' or 'error', got {measure!r}")
    if not scales or not all(FIRST <= each <= 1 for each in scales):
        raise UserError(f"detector.scales must be times from {FIRST} to 1, got {tuple(scales)}")
    network = AdmUNet(width, tuple(multipliers), blocks, tuple(attention), heads)

    def optimizer(spec):
        steps = epochs * spec.steps_per_epoch
        return optax.adamw(step_decay(learning_rate, 0.1, steps / 3, 2 * steps / 3), weight_decay=weight_decay)

    def noise_found(variables, x, t):
        """What the network takes for the noise, of deviation 1, at times `[B]`. The score is -1 / d(t) times it."""
        return -network.apply(variables, x, 1000 * t)

    def init(key, frozen, spec):
        del frozen
        check_sides(spec.image_shape, multipliers)
        keys = jax.random.split(key)
        variables = network.init(keys[0], jnp.zeros((1, *spec.image_shape)), jnp.zeros(1))
        return Scored(init_averaged(variables, optimizer(spec)), jax.random.key_data(keys[1]))

    def phases(spec):
        rule = optimizer(spec)

        def update(key, state, frozen, batch):
            del frozen
            keys, x = jax.random.split(key), 2 * batch.image - 1
            t = own_rows(lambda rows: jax.random.uniform(keys[0], (rows,), x.dtype, FIRST, 1), len(x))
            epsilon = noise_like(keys[1], x)
            noised = x + noise_deviation(t, sigma, jnp)[:, None, None, None] * epsilon

            def objective(variables):
                # (d(t) s + epsilon)^2, summed over pixels
                error = jnp.sum((epsilon - noise_found(variables, noised, t)) ** 2, axis=(1, 2, 3))
                return losses.mean(error, batch.valid), ({}, {})

            trained, info = averaged_step(state.network, objective, rule, decay)
            return Scored(trained, state.key), info

        return (Phase("train", update, epochs=epochs),)

    def drawn(key, number, x):
        """The noise of one step, which all rows share."""
        return jax.random.normal(jax.random.fold_in(key, number), (1, *x.shape[1:]), x.dtype)

    def resilience(variables, key, x):
        """The mean over scales and draws of the squared noise that is not found (Shin et al., eq. 9)."""
        times = jnp.asarray(np.repeat(np.asarray(scales), draws), x.dtype)
        deviations = jnp.asarray(np.repeat(noise_deviation(np.asarray(scales), sigma), draws), x.dtype)

        def add(i, total):
            noise, size = drawn(key, i, x), deviations[i]
            found = noise_found(variables, x + size * noise, jnp.full(len(x), times[i]))
            return total + jnp.mean((size * (noise - found)) ** 2, axis=-1)

        return jax.lax.fori_loop(0, len(times), add, jnp.zeros(x.shape[:3], x.dtype)) / len(times)

    def restore(variables, key, x):
        """Noised to `start`, then restored by predictor and corrector; the last step adds no noise."""
        times = np.linspace(start, FIRST, sampling_steps + 1)
        deviations = jnp.asarray(noise_deviation(times, sigma), x.dtype)
        times, steps = jnp.asarray(times, x.dtype), 1 + corrections

        def score(x, i):
            return -noise_found(variables, x, jnp.full(len(x), times[i])) / deviations[i]

        def step(i, carry):
            x, _ = carry
            x, mean = predictor_step(x, score(x, i), deviations[i], deviations[i + 1], drawn(key, steps * i, x))

            def correct(j, x):
                return corrector_step(x, score(x, i + 1), ratio, drawn(key, steps * i + j, x))

            # the corrector after the last step would add noise that nothing takes away
            x = jax.lax.fori_loop(1, jnp.where(i < sampling_steps - 1, steps, 1), correct, x)
            return x, mean

        first = x + deviations[0] * drawn(key, steps * sampling_steps, x)
        return jax.lax.fori_loop(0, sampling_steps, step, (first, x))[1]

    def predict(state, frozen, batch):
        del frozen
        x, key, variables = 2 * batch.image - 1, jax.random.wrap_key_data(state.key), {"params": state.network.average}
        if measure == "score":
            maps = resilience(variables, key, x)
        else:
            maps = jnp.mean((restore(variables, key, x) - x) ** 2, axis=-1)
        maps = ops.box_mean(maps, window, window // 2)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def warm_start(fresh, old):
        return Scored(copy_averaged(fresh.network, old.network), jnp.array(old.key))

    return Detector(init, phases, predict, warm_start=warm_start)
