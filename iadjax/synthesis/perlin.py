"""Perlin's gradient noise."""

import numpy as np

__all__ = ["perlin_noise"]


def perlin_noise(rng: np.random.Generator, size: tuple[int, int], cells: tuple[int, int]) -> np.ndarray:
    """Two-dimensional gradient noise (Perlin, SIGGRAPH 1985, with the quintic fade of 2002).

    Args:
      rng: draws the gradients.
      size: (height, width).
      cells: lattice cells along each axis; they need not divide the size.

    Returns:
      `[height, width]` float32, about [-1, 1], zero at the lattice points.
    """
    angle = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    y, x = (np.arange(each) * count / each for each, count in zip(size, cells, strict=True))
    row, column = y.astype(int), x.astype(int)
    dy, dx = (y - row)[:, None], (x - column)[None]

    def corner(down: int, right: int) -> np.ndarray:
        theta = angle[np.ix_(row + down, column + right)]
        return np.cos(theta) * (dy - down) + np.sin(theta) * (dx - right)

    def fade(t: np.ndarray) -> np.ndarray:
        return t**3 * (t * (6 * t - 15) + 10)

    top = corner(0, 0) + fade(dx) * (corner(0, 1) - corner(0, 0))
    bottom = corner(1, 0) + fade(dx) * (corner(1, 1) - corner(1, 0))
    return (np.sqrt(2) * (top + fade(dy) * (bottom - top))).astype(np.float32)
