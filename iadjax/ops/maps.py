"""Feature levels to one grid, and distances on a grid to anomaly maps."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.ops.resample import gaussian_blur, resize

__all__ = [
    "anomaly_map",
    "average_patches",
    "concatenate_levels",
    "level_means",
    "mean_of_largest",
    "quantile_where",
    "spread_patches",
    "top_mean",
]


def concatenate_levels(levels: Sequence[jax.Array]) -> jax.Array:
    """Levels of a network `[B, h, w, C]` on the grid of the first one, their channels concatenated: `[B, h, w, sum of C]`.

    Deeper levels are enlarged bilinearly (half-pixel centres, as PyTorch's `align_corners=False`).
    """
    height, width = levels[0].shape[1:3]
    grid = (height, width)
    return jnp.concatenate([levels[0], *(resize(level, grid) for level in levels[1:])], axis=-1)


def level_means(levels: Sequence[jax.Array]) -> jax.Array:
    """Levels of a network `[B, h, w, C]` as one vector of each image: their means over positions, `[B, sum of C]`."""
    return jnp.concatenate([jnp.mean(level, axis=(1, 2)) for level in levels], axis=-1)


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


def spread_patches(scores: jax.Array, centres: Sequence[np.ndarray], size: tuple[int, int], sigma: float) -> jax.Array:
    """The map of scores of patches: at every pixel their mean, weighed by a Gaussian of the distance to their centres.

    Every pixel's weights sum to 1, also near the border, where fewer patches are.

    Args:
      scores: `[B, h, w]`.
      centres: rows `[h]` and columns `[w]` of the patches' centres, in pixels.
      size: (height, width) of the map.
      sigma: of the Gaussian, in pixels.

    Returns:
      `[B, height, width]`.
    """
    weights = []
    for side, centre in zip(size, centres, strict=True):
        exponent = -0.5 * ((np.arange(side)[:, None] - centre) / sigma) ** 2
        # the nearest centre has the weight 1, however far it is
        weight = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        weights.append(weight)
    return _weighted_mean(scores, weights)


def average_patches(scores: jax.Array, side: int, stride: int, size: tuple[int, int]) -> jax.Array:
    """The map of scores of patches: at every pixel the mean of those that cover it.

    Pixels that no patch covers, between patches or at the lower and the right border, take the nearest patch of their row or
    column.

    Args:
      scores: `[B, h, w]`, of patches that begin at the multiples of `stride`.
      side: of the patches, in pixels.
      stride: pixels between their beginnings.
      size: (height, width) of the map.

    Returns:
      `[B, height, width]`.
    """
    weights = []
    for pixels, number in zip(size, scores.shape[1:], strict=True):
        # how far a pixel lies outside of each patch
        after = np.arange(pixels)[:, None] - stride * np.arange(number)
        outside = np.maximum(np.maximum(-after, after - side + 1), 0)
        weights.append(outside == outside.min(axis=1, keepdims=True))
    return _weighted_mean(scores, weights)


def _weighted_mean(scores: jax.Array, weights: Sequence[np.ndarray]) -> jax.Array:
    """`[B, h, w]` to `[B, height, width]` by the weights `[height, h]` and `[width, w]`, whose rows are made to sum to 1."""
    rows, columns = (jnp.asarray(each / each.sum(axis=1, keepdims=True), scores.dtype) for each in weights)
    return jnp.einsum("ya,bac,xc->byx", rows, scores, columns, precision="highest")


def top_mean(values: jax.Array, fraction: float) -> jax.Array:
    """The mean of the largest values of each row, the tail value at risk: `[B, N]` to `[B]`.

    Args:
      values: `[B, N]`.
      fraction: in (0, 1]; its part of N is rounded down, and at least one value counts.
    """
    return mean_of_largest(values, max(1, int(fraction * values.shape[1])))


def mean_of_largest(values: jax.Array, number: int) -> jax.Array:
    """The mean of so many largest values of each row, of all if there are fewer: `[B, N]` to `[B]`."""
    return jnp.mean(jax.lax.top_k(values, min(number, values.shape[1]))[0], axis=1)


def quantile_where(values: jax.Array, where: jax.Array, q: float) -> jax.Array:
    """The quantile `q` of the values where `where` is true, interpolated as NumPy's; 0 where there are none."""
    ordered = jnp.sort(jnp.where(where, values, jnp.inf).reshape(-1))
    number = jnp.sum(where)
    place = q * jnp.maximum(number - 1, 0).astype(values.dtype)
    low = jnp.floor(place).astype(jnp.int32)
    first, second = ordered[low], ordered[jnp.minimum(low + 1, jnp.maximum(number - 1, 0))]
    return jnp.where(number > 0, first + (place - low.astype(place.dtype)) * (second - first), 0)
