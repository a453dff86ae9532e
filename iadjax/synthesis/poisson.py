"""Poisson image blending of a rectangle (Pérez et al., SIGGRAPH 2003)."""

import numpy as np
from scipy.fft import dstn

__all__ = ["poisson_blend"]


def poisson_blend(destination: np.ndarray, source: np.ndarray, mixed: bool = False) -> np.ndarray:
    """Solves Laplace f = div v inside a rectangle, with f = destination on its border.

    The discrete sine transform (DST-I) diagonalises the five-point Laplacian on a rectangle. So the solution is exact and
    takes two transforms. A mask of another shape would need a sparse solver.

    Args:
      destination: `[h, w, C]` float, h, w >= 3; its outermost pixels are the border.
      source: `[h, w, C]` float; its gradient is the guidance field v.
      mixed: at each pair of neighbours, v is the difference of larger magnitude of the two images.

    Returns:
      `[h, w, C]` of the dtype of the destination, not clipped.
    """
    target, guide = destination.astype(np.float64), source.astype(np.float64)
    fields = []
    for axis in (0, 1):
        field, other = np.diff(guide, axis=axis), np.diff(target, axis=axis)
        fields.append(np.where(np.abs(other) > np.abs(field), other, field) if mixed else field)
    divergence = np.diff(fields[0], axis=0)[:, 1:-1] + np.diff(fields[1], axis=1)[1:-1]
    right = divergence
    # the terms of the Laplacian on the border are known
    right[0] -= target[0, 1:-1]
    right[-1] -= target[-1, 1:-1]
    right[:, 0] -= target[1:-1, 0]
    right[:, -1] -= target[1:-1, -1]
    height, width = right.shape[:2]
    rows, columns = (2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2 for n in (height, width))
    spectrum = dstn(right, type=1, axes=(0, 1)) / (rows[:, None] + columns)[..., None]
    # the transform is its own inverse up to this factor
    inner = dstn(spectrum, type=1, axes=(0, 1)) / (4 * (height + 1) * (width + 1))
    blended = target.copy()
    blended[1:-1, 1:-1] = inner
    return blended.astype(destination.dtype)
