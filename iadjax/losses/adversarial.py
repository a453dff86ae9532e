"""Losses of critics and discriminators."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

__all__ = ["gradient_penalty"]


def gradient_penalty(critic: Callable, real: jax.Array, fake: jax.Array, mixing: jax.Array) -> jax.Array:
    """(|dD / dx| - 1)^2 at x = e real + (1 - e) fake (WGAN-GP, Gulrajani et al., NeurIPS 2017, algorithm 1; factor 10 there).

    Args:
      critic: D, `[B, ...]` to `[B]`; the value of a row depends on that row alone.
      real, fake: `[B, ...]`.
      mixing: `[B]`, e in [0, 1], drawn for each row.
    """
    e = mixing.reshape(-1, *(1,) * (real.ndim - 1))
    gradient = jax.grad(lambda x: jnp.sum(critic(x)))(e * real + (1 - e) * fake)
    # the offset keeps the gradient of the norm finite where the critic is flat
    norm = jnp.sqrt(jnp.sum(gradient.reshape(len(real), -1) ** 2, axis=1) + 1e-12)
    return (norm - 1) ** 2
