"""Denoising diffusion (Ho et al., NeurIPS 2020; Song et al., ICLR 2021): noise schedules and steps, whatever the network is.

Times are 0 to T - 1, as in the published code; the noise of time t is that of t + 1 steps. Coefficients are computed in float64
and used in the dtype of the images.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError
from iadjax.parallel.axis import own_rows

__all__ = [
    "SCHEDULES",
    "Schedule",
    "ancestral_step",
    "ddim_coefficients",
    "ddim_step",
    "guided_noise",
    "noise_like",
    "noise_schedule",
    "noised",
    "posterior_mean",
    "respaced",
    "start_from_noise",
    "times_like",
]

SCHEDULES = ("linear", "cosine")


class Schedule(NamedTuple):
    """Numbers of every time, `[T]` float64.

    Attributes:
      beta: variance that one step adds.
      alpha_bar: what is left of the image's variance, the product of 1 - beta.
    """

    beta: np.ndarray
    alpha_bar: np.ndarray

    @property
    def previous(self) -> np.ndarray:
        """alpha_bar of the time before, 1 at the first."""
        return np.append(1.0, self.alpha_bar[:-1])

    @property
    def variance(self) -> np.ndarray:
        """Of the posterior q(x_{t-1} | x_t, x_0), beta tilde (Ho et al., eq. 7); 0 at the first time."""
        return self.beta * (1 - self.previous) / (1 - self.alpha_bar)


def noise_schedule(times: int, kind: str = "linear", first: float = 1e-4, last: float = 2e-2) -> Schedule:
    """The schedule of so many times.

    Args:
      times: T.
      kind: "linear": beta from `first` to `last`, times 1000 / T (Ho et al.); "cosine": alpha_bar falls as a squared cosine,
        beta at most 0.999 (Nichol & Dhariwal, ICML 2021, eq. 17).
      first, last: of the linear one.

    Raises:
      UserError: an unknown kind.
    """
    if kind not in SCHEDULES:
        raise UserError(f"there is no noise schedule {kind!r}; it is one of {', '.join(SCHEDULES)}")
    if kind == "linear":
        beta = np.linspace(first, last, times) * 1000 / times
    else:
        left = np.cos((np.arange(times + 1) / times + 0.008) / 1.008 * np.pi / 2) ** 2
        beta = np.minimum(1 - left[1:] / left[:-1], 0.999)
    return Schedule(beta, np.cumprod(1 - beta))


def respaced(times: int, number: int) -> np.ndarray:
    """So many of the times 0 to T - 1, the first and the last among them, about evenly: `[number]` int."""
    return np.round(np.linspace(0, times - 1, number)).astype(np.int32)


def _at(values: np.ndarray, t: jax.Array, x: jax.Array) -> jax.Array:
    """Numbers of times, a scalar or `[B]`, in the shape of `x [B, ...]`."""
    found = jnp.asarray(values, x.dtype)[t]
    return found.reshape(-1, *(1,) * (x.ndim - 1))


def noised(schedule: Schedule, x: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """A draw from q(x_t | x_0): sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise.

    Args:
      schedule: of the noise.
      x: `[B, ...]`, x_0.
      t: its time, a scalar or `[B]`.
      noise: like `x`, or of one row for all.
    """
    return _at(np.sqrt(schedule.alpha_bar), t, x) * x + _at(np.sqrt(1 - schedule.alpha_bar), t, x) * noise


def start_from_noise(schedule: Schedule, x: jax.Array, t: jax.Array, noise: jax.Array) -> jax.Array:
    """The x_0 that `noised` would have made x_t of; arguments as there, `x` is x_t."""
    return _at(np.sqrt(1 / schedule.alpha_bar), t, x) * x - _at(np.sqrt(1 / schedule.alpha_bar - 1), t, x) * noise


def posterior_mean(schedule: Schedule, start: jax.Array, x: jax.Array, t: jax.Array) -> jax.Array:
    """The mean of q(x_{t-1} | x_t, x_0) (Ho et al., eq. 7); `start` is x_0, `x` is x_t."""
    rest = 1 - schedule.alpha_bar
    of_start = schedule.beta * np.sqrt(schedule.previous) / rest
    of_x = (1 - schedule.previous) * np.sqrt(1 - schedule.beta) / rest
    return _at(of_start, t, x) * start + _at(of_x, t, x) * x


def ancestral_step(schedule: Schedule, x: jax.Array, t: jax.Array, predicted: jax.Array, noise: jax.Array) -> jax.Array:
    """One step of DDPM's sampler, from x_t to x_{t-1} (Ho et al., algorithm 2), with x_0 clipped to [-1, 1].

    The variance is beta, as in guided diffusion's "fixed large"; none at the last step.

    Args:
      schedule: of the noise.
      x: `[B, ...]`, x_t.
      t: its time.
      predicted: the noise that a network found in x_t.
      noise: what is added, like `x` or of one row for all.
    """
    start = jnp.clip(start_from_noise(schedule, x, t, predicted), -1, 1)
    deviation = np.sqrt(np.append(0.0, schedule.beta[1:]))
    return posterior_mean(schedule, start, x, t) + _at(deviation, t, x) * noise


def ddim_coefficients(now: np.ndarray, then: np.ndarray, eta: float = 0.0) -> np.ndarray:
    """What each step of DDIM takes of x, of the predicted noise and of new noise (Song et al., eq. 12, 16): `[N, 3]` float64.

    Args:
      now, then: `[N]`, alpha_bar before and after each step. A step to a noisier time is DDIM's inversion.
      eta: 0: no new noise; 1: as much as DDPM's posterior has, which needs steps to less noise.
    """
    now, then = np.asarray(now, np.float64), np.asarray(then, np.float64)
    sigma = eta * np.sqrt((1 - now / then) * (1 - then) / (1 - now)) if eta else np.zeros_like(now)
    of_x = np.sqrt(then / now)
    of_predicted = np.sqrt(np.maximum(1 - then - sigma**2, 0)) - of_x * np.sqrt(1 - now)
    return np.stack([of_x, of_predicted, sigma], axis=-1)


def ddim_step(coefficients: jax.Array, x: jax.Array, predicted: jax.Array, noise: jax.Array | float = 0.0) -> jax.Array:
    """One step of DDIM.

    Args:
      coefficients: `[3]`, a row of `ddim_coefficients`.
      x: `[B, ...]` before the step.
      predicted: the noise that a network found in it.
      noise: what is added, like `x` or of one row for all.
    """
    return coefficients[0] * x + coefficients[1] * predicted + coefficients[2] * noise


def guided_noise(
    schedule: Schedule, x: jax.Array, t: jax.Array, predicted: jax.Array, target: jax.Array, weight: float
) -> jax.Array:
    """The predicted noise, moved so that what is restored comes nearer to a target (Mousakhan et al., 2023, eq. 6).

    Args:
      schedule: of the noise.
      x: `[B, ...]`, x_t.
      t: its time, a scalar or `[B]`.
      predicted: the noise that a network found in x_t.
      target: like `x`, noised to the same time.
      weight: of the guidance; 0: none.
    """
    return predicted - _at(np.sqrt(1 - schedule.alpha_bar), t, x) * weight * (target - x)


def noise_like(key: jax.Array, x: jax.Array) -> jax.Array:
    """Standard normal noise like `x [B, ...]`, the same however the rows of a batch are split."""
    return own_rows(lambda rows: jax.random.normal(key, (rows, *x.shape[1:]), x.dtype), len(x))


def times_like(key: jax.Array, x: jax.Array, low: int, high: int) -> jax.Array:
    """A time for each row of `x`, uniform in [low, high): `[B]` int32, the same however the rows are split."""
    return own_rows(lambda rows: jax.random.randint(key, (rows,), low, high), len(x))
