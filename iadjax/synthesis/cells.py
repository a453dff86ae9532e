"""Disjoint sets of the cells of a grid, drawn at random (RIAD, Zavrtanik et al., Pattern Recognition 2021, section 3.1)."""

import numpy as np

__all__ = ["disjoint_cells"]


def disjoint_cells(rng: np.random.Generator, size: tuple[int, int], side: int, num_sets: int) -> np.ndarray:
    """The number of its set for each cell; sets are of equal size, but for one cell where their number does not divide.

    Args:
      rng: draws them.
      size: (height, width) of the image, multiples of `side`.
      side: of the cells, in pixels.
      num_sets: n.

    Returns:
      `[height / side, width / side]` uint8 in [0, n).
    """
    grid = (size[0] // side, size[1] // side)
    return rng.permutation(np.arange(grid[0] * grid[1]) % num_sets).reshape(grid).astype(np.uint8)
