"""Random patches of normal images, turned and flipped (Bergmann et al., VISAPP 2019)."""

import numpy as np

from iadjax.synthesis.perlin_texture import rotate

__all__ = ["random_patches"]


def random_patches(
    rng: np.random.Generator,
    image: np.ndarray,
    number: int,
    side: int,
    *,
    max_degrees: float = 45.0,
    rotate_prob: float = 0.3,
    flip_prob: float = 0.3,
) -> np.ndarray:
    """Square patches at random positions of an image.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      number: of patches.
      side: of a patch, in pixels, at most H and W.
      max_degrees: largest rotation of the image, in both directions, which every patch draws for itself.
      rotate_prob: its probability. Patches then come from the part of the turned image that nothing else than the image fills;
        where this is smaller than a patch, the image is not turned.
      flip_prob: probability of each of the two flips.

    Returns:
      `[number, side, side, 3]` float32 in [0, 1].
    """
    patches = []
    for _ in range(number):
        turned = image
        if rng.random() < rotate_prob:
            degrees = rng.uniform(-max_degrees, max_degrees)
            inside = _inscribed(image.shape[:2], degrees)
            if min(inside) >= side:
                top, left = ((whole - part) // 2 for whole, part in zip(image.shape[:2], inside, strict=True))
                turned = rotate(image, degrees)[top : top + inside[0], left : left + inside[1]]
        top, left = (int(rng.integers(whole - side + 1)) for whole in turned.shape[:2])
        patch = turned[top : top + side, left : left + side]
        for axis in (0, 1):
            if rng.random() < flip_prob:
                patch = np.flip(patch, axis)
        patches.append(patch)
    return np.ascontiguousarray(np.stack(patches), np.float32)


def _inscribed(size: tuple[int, int], degrees: float) -> tuple[int, int]:
    """Sides of the largest rectangle of the image's proportions that lies inside the turned image."""
    height, width = size
    sine, cosine = abs(np.sin(np.radians(degrees))), abs(np.cos(np.radians(degrees)))
    # half a pixel less at each side, as the border is interpolated
    scale = min(height / (width * sine + height * cosine), width / (height * sine + width * cosine))
    return max(0, int(scale * height) - 1), max(0, int(scale * width) - 1)
