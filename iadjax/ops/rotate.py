"""Rotations of images on the device."""

import jax
import jax.numpy as jnp

__all__ = ["rotate"]


def rotate(image: jax.Array, degrees: jax.Array) -> jax.Array:
    """Rotates images counter-clockwise about their centres: nearest neighbours, zeros outside, as PIL's `Image.rotate`.

    Args:
      image: `[B, H, W, C]`.
      degrees: `[B]` float32.

    Returns:
      An array of the same shape.
    """
    batch, height, width, depth = image.shape
    radians = jnp.deg2rad(degrees)[:, None, None]
    sine, cosine = jnp.sin(radians), jnp.cos(radians)
    y = (jnp.arange(height, dtype=jnp.float32) + (0.5 - height / 2))[None, :, None]
    x = (jnp.arange(width, dtype=jnp.float32) + (0.5 - width / 2))[None, None]
    # PIL rotates back from every pixel of the output; multiples of 90 degrees are exact but for the last bit
    column = jnp.floor(cosine * x - sine * y + width / 2 + 1e-4).astype(jnp.int32)
    row = jnp.floor(sine * x + cosine * y + height / 2 + 1e-4).astype(jnp.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    position = jnp.where(inside, row * width + column, 0).reshape(batch, -1, 1)
    pixels = jnp.take_along_axis(image.reshape(batch, -1, depth), position, axis=1).reshape(image.shape)
    return jnp.where(inside[..., None], pixels, 0)
