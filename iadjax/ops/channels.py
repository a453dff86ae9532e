"""Values of channels beside arrays of any rank."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["per_channel", "unit"]


def per_channel(values: jax.Array | np.ndarray, x: jax.Array) -> jax.Array | np.ndarray:
    """`[C]` as `[1, ..., 1, C]` with as many axes as `x [..., C]`: an axis is never added by itself."""
    return values.reshape((1,) * (x.ndim - 1) + values.shape)


def unit(x: jax.Array) -> jax.Array:
    """Vectors `[..., C]` of length 1; zeros stay zeros, and their gradient is finite."""
    squared = jnp.sum(x * x, axis=-1, keepdims=True)
    # the root of a number that is not chosen has a gradient too
    longer = squared > 1e-24
    return x / jnp.where(longer, jnp.sqrt(jnp.where(longer, squared, 1)), 1e-12)
