"""Simplex noise: gradient noise on a lattice of simplices, without the axes that Perlin's noise shows."""

import numpy as np

from iadjax.ops.simplex import GRADIENTS, SCALE, offsets

__all__ = ["simplex_noise", "simplex_octaves", "simplex_patch"]


def simplex_noise(table: np.ndarray, *coordinates: np.ndarray) -> np.ndarray:
    """OpenSimplex noise (Spencer, 2014) in two or three dimensions.

    The sum of (2 - r^2)^4 g.d over the lattice points nearer than sqrt 2, with d the vector from the point, r its length and g
    the point's gradient.

    Args:
      table: a permutation of 0 to 255, which gives each lattice point its gradient.
      *coordinates: x, y and, if there are three, z; they broadcast against each other.

    Returns:
      float64, about [-1, 1].
    """
    dimensions = len(coordinates)
    root = np.sqrt(dimensions + 1.0)
    stretch, squish = (1 / root - 1) / dimensions, (root - 1) / dimensions
    shifted = sum(coordinates) * stretch
    base = [np.floor(each + shifted).astype(np.int64) for each in coordinates]
    gradients = GRADIENTS[dimensions]
    value = 0.0
    for offset in offsets(dimensions):
        point = [corner + step for corner, step in zip(base, offset, strict=True)]
        skewed = sum(point) * squish
        delta = [each - corner - skewed for each, corner in zip(coordinates, point, strict=True)]
        weight = np.maximum(2 - sum(each**2 for each in delta), 0) ** 4
        index = 0
        for corner in point:
            index = table[(index + corner) & 255]
        # two gradients in turn for an even number, as the reference's mask of the low bit has it
        g = gradients[(index >> 1) & 7] if dimensions == 2 else gradients[index % len(gradients)]
        value = value + weight * sum(g[..., axis] * each for axis, each in enumerate(delta))
    return value / SCALE[dimensions]


def simplex_octaves(
    table: np.ndarray, shape: tuple[int, ...], octaves: int = 6, persistence: float = 0.6, wavelength: float = 32.0
) -> np.ndarray:
    """Simplex noise of several octaves on the integers of a grid, not normalised.

    Args:
      table: see `simplex_noise`.
      shape: (height, width), or (depth, height, width).
      octaves: their number; each halves the wavelength.
      persistence: factor of the amplitude from one octave to the next.
      wavelength: of the first octave, in steps of the grid.
    """
    # the last axis is x
    axes = np.meshgrid(*(np.arange(side, dtype=np.float64) for side in shape), indexing="ij", sparse=True)[::-1]
    # all octaves in one call: small arrays cost more calls than numbers
    octave = np.arange(octaves).reshape(-1, *(1 for _ in shape))
    noise = simplex_noise(table, *(axis[None] * 2.0**octave / wavelength for axis in axes))
    return np.sum(persistence**octave * noise, axis=0)


def simplex_patch(
    rng: np.random.Generator, image: np.ndarray, *, strength: float = 0.2, octaves: int = 6, persistence: float = 0.6
) -> np.ndarray:
    """An image with simplex noise in one rectangle, RD++'s pseudo-anomaly (Tien et al., CVPR 2023).

    The sides of the rectangle are drawn from 10 pixels to an eighth of the image's. The colours are slices of one
    three-dimensional field.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      strength: factor of the noise.
      octaves, persistence: see `simplex_octaves`.

    Returns:
      `[H, W, 3]` float32, not clipped.
    """
    table = rng.permutation(256)
    sides = [int(rng.integers(min(10, side // 8), max(11, side // 8))) for side in image.shape[:2]]
    starts = [int(rng.integers(side - length)) for side, length in zip(image.shape[:2], sides, strict=True)]
    noise = simplex_octaves(table, (3, *sides), octaves, persistence)
    noised = np.array(image, np.float32)
    rows, columns = (slice(start, start + length) for start, length in zip(starts, sides, strict=True))
    noised[rows, columns] += (strength * noise.transpose(1, 2, 0)).astype(np.float32)
    return noised
