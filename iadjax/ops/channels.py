"""Values of channels beside arrays of any rank."""

import jax

__all__ = ["per_channel"]


def per_channel(values: jax.Array, x: jax.Array) -> jax.Array:
    """`[C]` as `[1, ..., 1, C]` with as many axes as `x [..., C]`: an axis is never added by itself."""
    return values.reshape((1,) * (x.ndim - 1) + values.shape)
