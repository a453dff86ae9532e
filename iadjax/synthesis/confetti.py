"""Confetti noise: blurred squares that are added to normal images (FCDD, Liznerski et al., ICLR 2021)."""

import math

import numpy as np
from scipy import ndimage

__all__ = ["confetti"]

# of the authors' code, for images of 224 pixels: expected squares of a random colour and white ones, their sides, the sigma of
# the blur and half the side of its window, the largest rotation in degrees
_SIDE, _COLOURED, _WHITE, _LEAST, _LARGEST, _SIGMA, _REACH, _ROTATION = 224, 224**2 * 1.8e-5, 224**2 * 1.2e-5, 8, 54, 5, 12, 45
# noise that changes the mean grey level by less is subtracted if that changes more
_SEEN = 0.025 / 255


def confetti(rng: np.random.Generator, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An image with blurred squares of random sides, rotations and colours, and where it differs from the image given.

    There is at least one square of a random colour and one white one. Where both kinds meet, their colours add up. All sizes
    grow with the image.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].

    Returns:
      `[H, W, 3]` and `[H, W]` uint8 in {0, 1}.
    """
    scale = math.sqrt(image.shape[0] * image.shape[1]) / _SIDE
    noise = _squares(rng, image.shape[:2], scale, _COLOURED, False) + _squares(rng, image.shape[:2], scale, _WHITE, True)
    blur = {"sigma": (_SIGMA * scale, _SIGMA * scale, 0), "mode": "mirror", "radius": (math.ceil(_REACH * scale),) * 2 + (0,)}
    noise = ndimage.gaussian_filter(noise, **blur)
    added, removed = (np.clip(image + sign * noise, 0, 1) for sign in (1, -1))
    changes = [abs(float(np.mean(each - image))) for each in (added, removed)]
    changed = removed if changes[0] < _SEEN and changes[1] > changes[0] else added
    # a grey level of 8 bits
    mask = np.abs(changed - image).max(axis=2) >= 1 / 255
    return changed.astype(np.float32), mask.astype(np.uint8)


def _squares(rng: np.random.Generator, sides: tuple[int, int], scale: float, expected: float, white: bool) -> np.ndarray:
    """Squares on black, `[H, W, 3]` float32; a later one hides an earlier one."""
    noise = np.zeros((*sides, 3), np.float32)
    rows, columns = np.ogrid[: sides[0], : sides[1]]
    for _ in range(max(1, rng.poisson(expected))):
        half = scale * rng.integers(_LEAST, _LARGEST + 1) / 2
        y, x = rows - rng.uniform(0, sides[0]), columns - rng.uniform(0, sides[1])
        angle = math.radians(rng.uniform(-_ROTATION, _ROTATION))
        along, across = math.cos(angle) * y + math.sin(angle) * x, math.cos(angle) * x - math.sin(angle) * y
        colour = 1.0 if white else rng.integers(0, 256, 3).astype(np.float32) / 255
        noise[(np.abs(along) <= half) & (np.abs(across) <= half)] = colour
    return noise
