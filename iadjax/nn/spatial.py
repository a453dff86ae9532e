"""Spatial transformers (Jaderberg et al., NeurIPS 2015): a network that moves its input by an affine map it chooses itself."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm
from iadjax.ops import resize

__all__ = ["Localization", "affine", "inverse", "warp"]


class Localization(nn.Module):
    """Two strided convolutions, a grid of 4 x 4 and a dense layer: the parameters of `affine`, which begin at zero.

    Attributes:
      features: channels of the convolutions.
    """

    features: int = 16

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        """`[B, H, W, C]` to `[B, 5]`, each in (-1, 1); `valid` as that of `BatchNorm`."""
        for i in (1, 2):
            x = nn.relu(BatchNorm(name=f"norm{i}")(Conv(self.features, 3, 2, name=f"conv{i}")(x), valid))
        x = resize(x, (4, 4), antialias=True).reshape(len(x), -1)
        return jnp.tanh(nn.Dense(5, kernel_init=nn.initializers.zeros, name="dense")(x))


def affine(parameters: jax.Array, rotation: float, scale: float, translation: float) -> jax.Array:
    """Matrices `[B, 2, 3]` from a point of the output to a point of the input, (x, y) in [-1, 1].

    Args:
      parameters: `[B, 5]` in (-1, 1): rotation, both scales, both translations, as fractions of the limits.
      rotation: largest rotation, in degrees.
      scale: largest natural logarithm of a scale.
      translation: largest translation, as a fraction of half the image.
    """
    angle = jnp.deg2rad(rotation) * parameters[:, 0]
    sx, sy = jnp.exp(scale * parameters[:, 1]), jnp.exp(scale * parameters[:, 2])
    tx, ty = translation * parameters[:, 3], translation * parameters[:, 4]
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    rows = [jnp.stack([sx * cosine, -sy * sine, tx], -1), jnp.stack([sx * sine, sy * cosine, ty], -1)]
    return jnp.stack(rows, axis=1)


def inverse(theta: jax.Array) -> jax.Array:
    """The matrices `[B, 2, 3]` of the inverse maps."""
    (a, b, c), (d, e, f) = (jnp.unstack(row, axis=-1) for row in jnp.unstack(theta, axis=1))
    det = a * e - b * d
    rows = [jnp.stack([e, -b, b * f - c * e], -1), jnp.stack([-d, a, c * d - a * f], -1)]
    return jnp.stack(rows, axis=1) / det[:, None, None]


def warp(x: jax.Array, theta: jax.Array) -> jax.Array:
    """The input at the points that `theta` names, bilinearly; the image is mirrored at its border.

    As PyTorch's `affine_grid` and `grid_sample` with reflection and without aligned corners.

    Args:
      x: `[B, H, W, C]`.
      theta: `[B, 2, 3]`, see `affine`.

    Returns:
      `[B, H, W, C]`.
    """
    _, height, width, _ = x.shape
    columns, rows = (2 * (jnp.arange(side, dtype=x.dtype) + 0.5) / side - 1 for side in (width, height))
    grid = jnp.stack(jnp.broadcast_arrays(columns[None], rows[:, None], jnp.ones((1, 1), x.dtype)), axis=-1)
    points = jnp.einsum("bij,hwj->bhwi", theta, grid, precision="highest")

    def mirrored(point, side):
        at = ((point + 1) * side - 1) / 2
        # reflected about -1/2 and side - 1/2
        at = jnp.abs((at + 0.5) % (2 * side) - side)
        return jnp.clip(side - at - 0.5, 0, side - 1)

    column, row = mirrored(points[..., 0], width), mirrored(points[..., 1], height)
    left, top = jnp.floor(column), jnp.floor(row)
    right, bottom = jnp.minimum(left + 1, width - 1), jnp.minimum(top + 1, height - 1)
    to_right, down = (column - left)[..., None], (row - top)[..., None]

    def at(row, column):
        place = (row * width + column).astype(jnp.int32).reshape(len(x), -1, 1)
        return jnp.take_along_axis(x.reshape(len(x), height * width, -1), place, axis=1).reshape(x.shape)

    upper = at(top, left) * (1 - to_right) + at(top, right) * to_right
    lower = at(bottom, left) * (1 - to_right) + at(bottom, right) * to_right
    return upper * (1 - down) + lower * down
