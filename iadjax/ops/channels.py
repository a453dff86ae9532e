"""Values of channels beside arrays of any rank."""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["per_channel", "unit"]


def per_channel(values: jax.Array | np.ndarray, x: jax.Array) -> jax.Array | np.ndarray:
    """`[C]` as `[1, ..., 1, C]` with as many axes as `x [..., C]`: an axis is never added by itself."""
    return values.reshape((1,) * (x.ndim - 1) + values.shape)


def unit(x: jax.Array) -> jax.Array:
    """Vectors `[..., C]` of length 1; zeros stay zeros. Its gradient at zero is not finite."""
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
