"""Normalisations with PyTorch's conventions, whose gradients are fast on every platform."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from iadjax.ops import per_channel
from iadjax.parallel.axis import all_sum, first_row

__all__ = ["BatchNorm", "GroupNorm", "group_norm", "instance_norm"]


class BatchNorm(nn.Module):
    """Batch normalisation over the valid rows, with PyTorch's momentum and the variables of `nn.BatchNorm`.

    Flax's BatchNorm with a mask counts valid numbers by summing an array of the size of its input. On CPUs that takes five
    times as long as all the rest of it.

    Attributes:
      scale_init: draws the scales.
    """

    scale_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        """Normalises `[B, ..., C]`.

        Args:
          x: what to normalise.
          valid: `[B]`, the rows that give the statistics and update the running ones. `[B / G, G]`: each group, every G-th row,
            has its own statistics, whose mean updates the running ones. None: the running statistics normalise, as in
            prediction. The running variance is the biased one; PyTorch's has n - 1 in its denominator.
        """
        depth = x.shape[-1:]
        drawn = {"mean": jnp.zeros, "var": jnp.ones}
        running = [self.variable("batch_stats", name, init, depth, jnp.float32) for name, init in drawn.items()]
        scale = self.param("scale", self.scale_init, depth, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, depth, jnp.float32)

        def normalise(x, mean, variance):
            factor = scale * jax.lax.rsqrt(variance + 1e-5)
            return (x - per_channel(mean, x)) * per_channel(factor, x) + per_channel(bias, x)

        if valid is None:
            return normalise(x, *(each.value for each in running))
        if valid.ndim == 2:
            grouped = x.reshape(*valid.shape, *x.shape[1:])
            moments = jax.vmap(_moments, in_axes=1)(grouped, valid)
            y = jax.vmap(normalise, in_axes=(1, 0, 0), out_axes=1)(grouped, *moments).reshape(x.shape)
            moments = [jnp.mean(each, axis=0) for each in moments]
        else:
            moments = _moments(x, valid)
            y = normalise(x, *moments)
        if not self.is_initializing():
            for each, new in zip(running, moments, strict=True):
                each.value = 0.9 * each.value + 0.1 * new
        return y


def _moments(x: jax.Array, valid: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance `[C]` of the valid rows of `[B, ..., C]`."""
    number = (all_sum(valid.sum()) * math.prod(x.shape[1:-1])).astype(x.dtype)

    def mean(x):
        # sums of rows first: a mask of the size of x would take memory
        return all_sum(jnp.where(valid[:, None], jnp.sum(x, tuple(range(1, x.ndim - 1))), 0).sum(0)) / number

    # squared distances to a number near the mean: distances to 0 would cancel where the mean is large
    near = jax.lax.stop_gradient(first_row(x.reshape(-1, x.shape[-1])))
    first = mean(x)
    return first, jnp.maximum(mean((x - per_channel(near, x)) ** 2) - (first - near) ** 2, 0)


class GroupNorm(nn.Module):
    """Group normalisation (Wu & He, ECCV 2018) with the variables of `nn.GroupNorm`, for images.

    Flax's splits the axis of channels, over which CPUs then compute one number at a time: that takes two to five times as long.

    Attributes:
      groups: divides the channels.
      epsilon: added to the variance.
    """

    groups: int
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalises `[B, H, W, C]` or `[B, N, C]` over the positions and channels of each group of an image."""
        rows, depth, positions = len(x), x.shape[-1], tuple(range(1, x.ndim - 1))
        scale = self.param("scale", nn.initializers.ones, (depth,))
        bias = self.param("bias", nn.initializers.zeros, (depth,))

        def of_groups(x: jax.Array) -> jax.Array:
            """The mean of each group, at each of its channels."""
            means = x.mean(positions, keepdims=True).reshape(rows, self.groups, -1).mean(-1)
            return jnp.repeat(means, depth // self.groups, axis=1).reshape(rows, *(1,) * len(positions), depth)

        x, scale, bias = promote_dtype(x, scale, bias)
        x -= of_groups(x)
        inverse = jax.lax.rsqrt(of_groups(x**2) + self.epsilon)
        return x * (inverse * per_channel(scale, x)) + per_channel(bias, x)


def group_norm(x: jax.Array, name: str, groups: int = 32) -> jax.Array:
    """`GroupNorm` in so many groups, in fewer where they do not divide the channels; for modules that are `nn.compact`."""
    return GroupNorm(math.gcd(groups, x.shape[-1]), name=name)(x)


def instance_norm(x: jax.Array, epsilon: float = 1e-5) -> jax.Array:
    """Every channel of every row of `[B, H, W, C]` to mean 0 and variance 1, without weights: PyTorch's `InstanceNorm2d`."""
    centred = x - jnp.mean(x, axis=(1, 2), keepdims=True)
    return centred * jax.lax.rsqrt(jnp.mean(centred**2, axis=(1, 2), keepdims=True) + epsilon)
