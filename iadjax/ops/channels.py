"""Values of channels beside arrays of any rank."""

import jax
import numpy as np

__all__ = ["per_channel"]


def per_channel(values: jax.Array | np.ndarray, x: jax.Array) -> jax.Array | np.ndarray:
    """`[C]` as `[1, ..., 1, C]` with as many axes as `x [..., C]`: an axis is never added by itself."""
    return values.reshape((1,) * (x.ndim - 1) + values.shape)
