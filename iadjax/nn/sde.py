"""Score-based models by a stochastic differential equation (Song et al., ICLR 2021), whatever the network is.

Noise of growing variance, "VE": dx = sigma^t dw for times t in (0, 1]. So x_t is x_0 plus noise of the deviation d(t), d(t)^2 =
(sigma^(2 t) - 1) / (2 log sigma). Deviations are computed in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["corrector_step", "noise_deviation", "predictor_step"]


def noise_deviation(t, sigma: float, xp=np):
    """d(t), see above; `xp`: the library whose array `t` is."""
    return xp.sqrt((sigma ** (2 * t) - 1) / (2 * np.log(sigma)))


def predictor_step(x: jax.Array, score: jax.Array, before, after, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
    """One step of reverse diffusion (Song et al., algorithm 2).

    Args:
      x: `[B, ...]` at the deviation `before`.
      score: like `x`, s(x).
      before, after: deviations, of which the second is the smaller one; scalars.
      noise: what is added, like `x` or of one row for all.

    Returns:
      x at the deviation `after`, and its mean, to which no noise was added.
    """
    variance = before**2 - after**2
    mean = x + variance * score
    return mean + jnp.sqrt(variance) * noise, mean


def corrector_step(x: jax.Array, score: jax.Array, ratio: float, noise: jax.Array) -> jax.Array:
    """One step of annealed Langevin dynamics at a fixed deviation (Song et al., algorithm 4).

    The authors' code takes the means of both norms over a batch. Here every image has its own, so that it does not depend on
    the others.

    Args:
      x, score: `[B, ...]`, and s(x).
      ratio: r, of the norms of signal and noise.
      noise: what is added, like `x` or of one row for all.
    """
    norm = lambda x: jnp.sqrt(jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True))  # noqa: E731
    length = 2 * (ratio * norm(noise) / jnp.maximum(norm(score), 1e-12)) ** 2
    return x + length * score + jnp.sqrt(2 * length) * noise
