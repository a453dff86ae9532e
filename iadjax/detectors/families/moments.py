"""Means and variances over images, one batch after the other."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.parallel.axis import all_sum

__all__ = ["Moments", "merged", "no_moments", "running_mean", "standardized"]


def running_mean(count: jax.Array, mean: Any, values: Any, valid: jax.Array) -> tuple[jax.Array, Any]:
    """The number of images and the mean of their numbers, with those of one more batch.

    Args:
      count: float32 scalar; images so far.
      mean: array `[...]`, or a tree of them; anything finite while there are no images.
      values: `[B, ...]`, nested alike.
      valid: `[B]`, images that count.
    """
    total = count + all_sum(jnp.sum(valid, dtype=jnp.float32))

    def moved(mean, values):
        counts = valid.reshape(-1, *(1,) * mean.ndim)
        return mean + all_sum(jnp.sum(jnp.where(counts, values - mean[None], 0), axis=0)) / jnp.maximum(total, 1)

    return total, jax.tree.map(moved, mean, values)


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
