"""Pairs of patches: beside each other, as in a jigsaw puzzle, or almost the same (Patch SVDD, Yi & Yoon, ACCV 2020).

The first task is that of "Unsupervised Visual Representation Learning by Context Prediction" (Doersch et al., ICCV 2015).
Places are (top, left) of a patch, in pixels.
"""

import numpy as np

__all__ = ["SIDES", "adjacent_patches", "draw_pairs", "jittered_patches"]

SIDES = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""(down, right): where the second patch lies, by class."""

Place = tuple[int, int]


def adjacent_patches(rng: np.random.Generator, size: tuple[int, int], side: int) -> tuple[Place, Place, int]:
    """Two patches beside each other, and the index in `SIDES` of the second one's direction.

    Along each axis of the direction they are 3/4 of a side apart, and up to 1/4 more, drawn at random. The second patch is
    moved back into the image.

    Args:
      rng: random generator.
      size: (height, width) of the image, at least a side each.
      side: of the patches.
    """
    first, position = _anywhere(rng, size, side), int(rng.integers(len(SIDES)))
    far = 3 * side // 4 + rng.integers(max(1, side // 4), size=2)
    return first, _within(np.add(first, SIDES[position] * far), size, side), position


def jittered_patches(rng: np.random.Generator, size: tuple[int, int], side: int) -> tuple[Place, Place]:
    """Two patches at most 1/32 of a side apart along each axis, and a pixel at least; the arguments of `adjacent_patches`."""
    first, reach = _anywhere(rng, size, side), max(1, side // 32)
    jitter = np.zeros(2, int)
    while not jitter.any():
        jitter = rng.integers(-reach, reach + 1, size=2)
    return first, _within(first + jitter, size, side)


def draw_pairs(
    rng: np.random.Generator, image: np.ndarray, side: int, number: int, noise: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of both kinds from one image.

    Args:
      rng: random generator.
      image: `[H, W, 3]` float32.
      side: of the patches.
      number: of pairs of each kind.
      noise: standard deviation of what is added to each colour, as a whole, and to each pixel of adjacent patches.

    Returns:
      patches `[number, 4, side, side, 3]` float32, two adjacent ones and two that are almost the same; their places
      `[number, 4, 2]` int32; the classes of the adjacent ones `[number]` int32.
    """
    places, positions = np.zeros((number, 4, 2), np.int32), np.zeros(number, np.int32)
    for i in range(number):
        *adjacent, positions[i] = adjacent_patches(rng, image.shape[:2], side)
        places[i] = *adjacent, *jittered_patches(rng, image.shape[:2], side)
    patches = np.stack([[image[y : y + side, x : x + side] for y, x in four] for four in places])
    near = patches[:, :2]
    near += rng.normal(0, noise, (number, 2, 1, 1, 3)) + rng.normal(0, noise, near.shape)
    return patches, places, positions


def _anywhere(rng, size, side) -> Place:
    return int(rng.integers(size[0] - side + 1)), int(rng.integers(size[1] - side + 1))


def _within(place, size, side) -> Place:
    return int(np.clip(place[0], 0, size[0] - side)), int(np.clip(place[1], 0, size[1] - side))
