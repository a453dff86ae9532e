"""One level of a Gaussian pyramid (Burt & Adelson, IEEE Trans. Communications 1983), as OpenCV has it."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["pyramid_down", "pyramid_up"]


def pyramid_down(image: jax.Array) -> jax.Array:
    """Every second pixel of the image filtered by 1, 4, 6, 4, 1: `[B, H, W, C]`, even sides, to `[B, H / 2, W / 2, C]`.

    Outside, the image is mirrored without repeating the edge. This is OpenCV's `pyrDown` before its rounding.
    """
    return _product(image, _down)


def pyramid_up(image: jax.Array) -> jax.Array:
    """The image of twice the side that `pyramid_down`'s filter interpolates: `[B, H, W, C]` to `[B, 2 H, 2 W, C]`.

    The first rows and columns are mirrored, the last ones repeat. This is OpenCV's `pyrUp` before its rounding.
    """
    return _product(image, _up)


def _product(image: jax.Array, matrix) -> jax.Array:
    rows, columns = (jnp.asarray(matrix(side), image.dtype) for side in image.shape[1:3])
    return jnp.einsum("oh,bhwc,pw->bopc", rows, image, columns, precision="highest")


@lru_cache
def _down(side: int) -> np.ndarray:
    weights, centres = np.zeros((side // 2, side)), np.arange(0, side, 2)
    for offset, tap in zip(range(-2, 3), (1, 4, 6, 4, 1), strict=True):
        position = np.abs(centres + offset)
        np.add.at(weights, (centres // 2, np.minimum(position, 2 * side - 2 - position)), tap / 16)
    return weights


@lru_cache
def _up(side: int) -> np.ndarray:
    weights, rows = np.zeros((2 * side, side)), np.arange(side)
    before, after = np.minimum(np.abs(rows - 1), side - 1), np.minimum(rows + 1, side - 1)
    for position, even, odd in ((before, 1 / 8, 0), (rows, 6 / 8, 1 / 2), (after, 1 / 8, 1 / 2)):
        np.add.at(weights, (2 * rows, position), even)
        np.add.at(weights, (2 * rows + 1, position), odd)
    return weights
