"""What losses do with the rows of a batch and with gradients."""

import jax
import jax.numpy as jnp

from iadjax.parallel.axis import all_sum

__all__ = ["mean", "weigh_gradient"]


def mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of `[B]` values over the rows where `valid [B]` is true.

    Each of several replicas gets the part of its own rows; `train_step` sums the parts.
    """
    number = jnp.maximum(all_sum(jnp.sum(valid)), 1)
    return jnp.sum(jnp.where(valid, values, 0)) / number.astype(values.dtype)


@jax.custom_vjp
def weigh_gradient(x: jax.Array, weight: jax.Array) -> jax.Array:
    """`x` itself, whose gradient is multiplied by `weight`, an array that broadcasts against it and gets no gradient."""
    del weight
    return x


weigh_gradient.defvjp(lambda x, weight: (x, weight), lambda weight, gradient: (gradient * weight, jnp.zeros_like(weight)))
