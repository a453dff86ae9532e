"""Rectangles of white noise in normal images (CDO, Cao et al., IEEE TII 2023)."""

import numpy as np
from scipy import ndimage

__all__ = ["white_noise_patches"]

# of the authors' code: sides of an image over the least and the largest half side of a rectangle; draws of a centre
_LEAST, _LARGEST, _TRIES = 40, 10, 200
# grey values beside which a pixel is background, sides of the median and of the dilation
_DARK, _BRIGHT, _MEDIAN, _DILATION = 30 / 255, 220 / 255, 7, 19


def white_noise_patches(
    rng: np.random.Generator, image: np.ndarray, max_patches: int = 4, skip_background: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """An image with rectangles of noise whose numbers are drawn one by one, and where they are.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      max_patches: there are so many at most, each number down to 0 equally often.
      skip_background: centres do not lie on dark or bright background, where others are found.

    Returns:
      `[H, W, 3]` and `[H, W]` uint8 in {0, 1}.
    """
    sides = image.shape[:2]
    background = _background(image) if skip_background else np.zeros(sides, bool)
    mask = np.zeros(sides, np.uint8)
    for _ in range(rng.integers(max_patches + 1)):
        for _ in range(_TRIES):
            # at least one, also in small images
            least = [max(1, side // _LEAST) for side in sides]
            half = [int(rng.integers(low, max(low + 1, side // _LARGEST))) for low, side in zip(least, sides, strict=True)]
            centre = [int(rng.integers(each, side - each)) for each, side in zip(half, sides, strict=True)]
            if not background[tuple(centre)]:
                break
        mask[tuple(slice(middle - each, middle + each) for middle, each in zip(centre, half, strict=True))] = 1
    noise = rng.integers(0, 255, image.shape).astype(np.float32) / 255
    return np.where(mask[..., None] == 1, noise, image), mask


def _background(image: np.ndarray) -> np.ndarray:
    """Pixels that are nearly black or nearly white, and those around them."""
    grey = image.mean(axis=2)
    extreme = ((grey > _BRIGHT) | (grey < _DARK)).astype(np.uint8)
    return ndimage.maximum_filter(ndimage.median_filter(extreme, _MEDIAN), _DILATION) > 0
