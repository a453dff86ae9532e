"""Feature levels to one grid, and distances on a grid to anomaly maps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from iadjax.ops.resample import gaussian_blur, resize

__all__ = ["anomaly_map", "concatenate_levels", "top_mean"]


def concatenate_levels(levels: Sequence[jax.Array]) -> jax.Array:
    """Levels of a network `[B, h, w, C]` on the grid of the first one, their channels concatenated: `[B, h, w, sum of C]`.

    Deeper levels are enlarged bilinearly (half-pixel centres, as PyTorch's `align_corners=False`).
    """
    height, width = levels[0].shape[1:3]
    grid = (height, width)
    return jnp.concatenate([levels[0], *(resize(level, grid) for level in levels[1:])], axis=-1)


def anomaly_map(distance: jax.Array, size: tuple[int, int], sigma: float = 0.0, *, align_corners: bool = False) -> jax.Array:
    """Distances on a grid as a map of the input's size: bilinear, then smoothed.

    Args:
      distance: `[B, h, w]`.
      size: (height, width) of the map.
      sigma: of the Gaussian, in pixels of the map; 0: not smoothed.
      align_corners: see `resize`.

    Returns:
      `[B, height, width]`.
    """
    maps = resize(distance[..., None], size, align_corners=align_corners)[..., 0]
    return gaussian_blur(maps, sigma) if sigma else maps


def top_mean(values: jax.Array, fraction: float) -> jax.Array:
    """The mean of the largest values of each row, the tail value at risk: `[B, N]` to `[B]`.

    Args:
      values: `[B, N]`.
      fraction: in (0, 1]; its part of N is rounded down, and at least one value counts.
    """
    return jnp.mean(jax.lax.top_k(values, max(1, int(fraction * values.shape[1])))[0], axis=1)
