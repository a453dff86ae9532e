"""StableAdamW: AdamW whose steps shrink where the squared gradients of a tensor grew (Wortsman et al., NeurIPS 2023)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = ["StableAdamWState", "stable_adamw"]


class StableAdamWState(NamedTuple):
    """State of `stable_adamw`.

    Attributes:
      count: int32 scalar; steps taken.
      mu, nu: trees like the parameters, running means of the gradients and of their squares.
      nu_max: the largest `nu` so far.
    """

    count: jax.Array
    mu: optax.Updates
    nu: optax.Updates
    nu_max: optax.Updates


def stable_adamw(
    rate: optax.ScalarOrSchedule,
    weight_decay: float = 1e-4,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-10,
    threshold: float = 1.0,
) -> optax.GradientTransformation:
    """AdamW with AMSGrad's maximum of the squares and Adafactor's clipping of the step, as Dinomaly's authors have it.

    Of each tensor: denominator d = sqrt(max nu) / sqrt(1 - beta2^t) + epsilon, and the step is divided by
    max(1, RMS(g / d) / threshold). Optax's AMSGrad takes the maximum after the correction of the bias, PyTorch's before.

    Args:
      rate: learning rate, or a schedule of the number of steps taken before.
      weight_decay: decoupled, times the rate.
      beta1, beta2, epsilon: Adam's.
      threshold: of the root mean square, Adafactor's d.
    """

    def init(params):
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(3)]
        return StableAdamWState(jnp.zeros((), jnp.int32), *zeros)

    def update(gradients, state, params):
        count = state.count + 1
        now = rate(state.count) if callable(rate) else rate
        first, second = (1 - beta ** count.astype(jnp.float32) for beta in (beta1, beta2))
        mu = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g**2, state.nu, gradients)
        nu_max = jax.tree.map(jnp.maximum, state.nu_max, nu)

        def step(m, v, g, p):
            denominator = jnp.sqrt(v) / jnp.sqrt(second) + epsilon
            calm = jnp.maximum(1.0, jnp.sqrt(jnp.mean((g / denominator) ** 2)) / threshold)
            # the weights decay before the step
            return (-now * (weight_decay * p + m / (first * calm * denominator))).astype(p.dtype)

        return jax.tree.map(step, mu, nu_max, gradients, params), StableAdamWState(count, mu, nu, nu_max)

    return optax.GradientTransformation(init, update)
