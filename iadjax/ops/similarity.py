"""Structural similarity as products with banded matrices."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["ssim"]


def ssim(x: jax.Array, y: jax.Array, window: int = 11, sigma: float = 1.5, data_range: float = 1.0) -> jax.Array:
    """Map of the structural similarity of two images (Wang et al., IEEE TIP 2004, eq. 13), for each channel.

    A Gaussian window weights local means, variances and the covariance. Outside the image are zeros.

    Args:
      x, y: `[B, H, W, C]`.
      window: side of the window, odd.
      sigma: of the Gaussian, in pixels.
      data_range: L, the distance between the largest and the smallest possible value; C1 = (.01 L)^2, C2 = (.03 L)^2.

    Returns:
      `[B, H, W, C]`, at most 1.
    """
    rows = jnp.asarray(_window(x.shape[1], window, sigma), x.dtype)
    columns = jnp.asarray(_window(x.shape[2], window, sigma), x.dtype)

    def local(image):
        return jnp.einsum("oh,bhwc,pw->bopc", rows, image, columns, precision="highest")

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = local(x), local(y)
    var_x, var_y, cov = local(x * x) - mean_x**2, local(y * y) - mean_y**2, local(x * y) - mean_x * mean_y
    return ((2 * mean_x * mean_y + c1) * (2 * cov + c2)) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))


@lru_cache
def _window(size: int, window: int, sigma: float) -> np.ndarray:
    """`[size, size]` banded matrix of the window along one axis."""
    offsets = np.arange(window) - window // 2
    taps = np.exp(-0.5 * (offsets / sigma) ** 2)
    return sum(tap * np.eye(size, k=int(offset)) for tap, offset in zip(taps / taps.sum(), offsets, strict=True))
