"""Views of contrastive learning: a part of the image, mirrored, in other colours, blurred (Chen et al., ICML 2020; MoCo v2)."""

import numpy as np
from PIL import Image
from scipy import ndimage

from iadjax.synthesis.appearance import colour_jitter, grey

__all__ = ["contrastive_view"]


def contrastive_view(rng: np.random.Generator, image: np.ndarray, least: float = 0.2) -> np.ndarray:
    """One view of an image, as MSC's authors draw it (Reiss & Hoshen, AAAI 2023).

    A rectangle of U(least, 1) of the area, whose sides have a ratio of 3/4 to 4/3, comes to the size of the image. Then, each
    with its probability: other colours (0.8), in a fixed order here and in a random one there; grey (0.2); a Gaussian blur of
    U(0.1, 2) pixels (0.5); mirrored (0.5).

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      least: the smallest part of the area.

    Returns:
      `[H, W, 3]` float32 in [0, 1].
    """
    height, width = image.shape[:2]
    rows, columns = _sides(rng, height, width, least)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    view = _resized(image[top : top + rows, left : left + columns], (height, width))
    if rng.random() < 0.8:
        view = colour_jitter(rng, view, 0.4, 0.1)
    if rng.random() < 0.2:
        view = grey(view)
    if rng.random() < 0.5:
        view = ndimage.gaussian_filter(view, (*[rng.uniform(0.1, 2.0)] * 2, 0), mode="nearest")
    if rng.random() < 0.5:
        view = view[:, ::-1]
    return np.ascontiguousarray(view, np.float32)


def _sides(rng: np.random.Generator, height: int, width: int, least: float) -> tuple[int, int]:
    """Rows and columns of the rectangle; the whole image if ten of them do not fit into it."""
    for _ in range(10):
        area = height * width * rng.uniform(least, 1)
        ratio = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
        columns, rows = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if 0 < columns <= width and 0 < rows <= height:
            return rows, columns
    return height, width


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels = [Image.fromarray(image[..., i]).resize(size[::-1], Image.Resampling.BILINEAR) for i in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)
