"""Mean and variance of channels over images, one batch after the other."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.parallel.axis import all_sum

__all__ = ["Moments", "merged", "no_moments", "standardized"]


class Moments(NamedTuple):
    """How many images there were, with the mean `[K]` and the variance `[K]` of their numbers."""

    count: jax.Array
    mean: jax.Array
    variance: jax.Array


def no_moments(channels: int) -> Moments:
    """Of no image."""
    return Moments(jnp.zeros(()), jnp.zeros(channels), jnp.zeros(channels))


def merged(moments: Moments, values: jax.Array, valid: jax.Array) -> Moments:
    """Moments with those of one more batch of values `[B, H, W, K]`, of whose images `valid [B]` count (Chan et al., 1979)."""
    weight = valid.astype(values.dtype)
    number = all_sum(weight.sum())
    sums = lambda x: all_sum(jnp.sum(weight[:, None] * x.mean(axis=(1, 2)), axis=0))  # noqa: E731
    mean = sums(values) / jnp.maximum(number, 1)
    variance = sums((values - ops.per_channel(mean, values)) ** 2) / jnp.maximum(number, 1)
    total = moments.count + number
    part, delta = number / jnp.maximum(total, 1), mean - moments.mean
    both = (1 - part) * moments.variance + part * variance + part * (1 - part) * delta**2
    return Moments(total, moments.mean + part * delta, both)


def standardized(values: jax.Array, moments: Moments) -> jax.Array:
    """Values `[B, H, W, K]` less their mean, over their standard deviation."""
    mean, std = (ops.per_channel(each, values) for each in (moments.mean, jnp.sqrt(moments.variance)))
    return (values - mean) / jnp.maximum(std, 1e-12)
