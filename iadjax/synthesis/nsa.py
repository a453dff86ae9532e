"""Natural synthetic anomalies (NSA; Schlüter et al., ECCV 2022): patches of other normal images, blended in without an edge."""

import numpy as np
from PIL import Image
from scipy import ndimage

from iadjax.errors import UserError
from iadjax.synthesis.poisson import poisson_blend

__all__ = ["nsa"]


def nsa(
    rng: np.random.Generator,
    image: np.ndarray,
    source: np.ndarray,
    *,
    max_patches: int = 3,
    half_width: tuple[float, float] = (0.05, 0.2),
    gamma: tuple[float, float, float] = (2.0, 0.05, 0.03),
    resize: tuple[float, float] = (0.7, 1.3),
    mixed: bool = False,
    label: str = "binary",
    tolerance: float = 1 / 255,
    logistic: tuple[float, float] = (1 / 6, 20.0),
) -> tuple[np.ndarray, np.ndarray]:
    """Blends one or more rectangles of another image into this one.

    The authors have a table of backgrounds for some MVTec categories, so that patches fall on the object. This has none.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      source: another normal image, `[h, w, 3]`.
      max_patches: the first patch is always drawn, each further one with probability 1/2.
      half_width: bounds of half the side of a patch, as fractions of the image's side.
      gamma: (shape, scale, offset) of the gamma distribution that this fraction is drawn from.
      resize: bounds of the factor N(1, 0.5) by which the patch is resized.
      mixed: mixed gradients, see `poisson_blend`.
      label: "binary"; "intensity": the mean absolute change over channels, median-filtered, in grey levels of 255;
        "logistic": that through 1 / (1 + exp(-k (x - x0))).
      tolerance: a pixel that changed by no more is normal.
      logistic: (k, x0).

    Returns:
      The image, and its label `[H, W]`: uint8 for "binary", else float32.

    Raises:
      UserError: an unknown label.
    """
    if label not in ("binary", "intensity", "logistic"):
        raise UserError(f"the label of nsa must be 'binary', 'intensity' or 'logistic', got {label!r}")
    result, touched = image.copy(), np.zeros(image.shape[:2], bool)
    for number in range(max_patches):
        if number and rng.random() < 0.5:
            continue
        patch = _patch(rng, image.shape[:2], source, half_width, gamma, resize)
        height, width = patch.shape[:2]
        top, left = (int(rng.integers(side - part + 1)) for side, part in zip(image.shape[:2], patch.shape[:2], strict=True))
        window = (slice(top, top + height), slice(left, left + width))
        result[window] = np.clip(poisson_blend(result[window], patch, mixed), 0, 1)
        touched[window] = True
    change = np.abs(result - image).mean(axis=-1)
    # the median fills single pixels that happen to be equal
    mask = ndimage.median_filter((touched & (change > tolerance)).astype(np.uint8), 5)
    if label == "binary":
        return result, mask
    rows, columns = np.mgrid[-5:6, -5:6]
    level = ndimage.median_filter(255 * change * mask, footprint=rows**2 + columns**2 <= 25)
    if label == "logistic":
        level = mask / (1 + np.exp(-logistic[0] * (level - logistic[1])))
    return result, level.astype(np.float32)


def _patch(rng, size, source, half_width, gamma, resize) -> np.ndarray:
    """A resized rectangle of the source that fits into `size`."""
    shape, scale, offset = gamma
    halves = [
        int(np.clip((offset + rng.gamma(shape, scale)) * side, half_width[0] * side, half_width[1] * side)) for side in size
    ]
    sides = [max(3, min(2 * half, side)) for half, side in zip(halves, source.shape[:2], strict=True)]
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(source.shape[:2], sides, strict=True))
    factor = float(np.clip(rng.normal(1, 0.5), *resize))
    height, width = (int(np.clip(round(factor * part), 3, side)) for part, side in zip(sides, size, strict=True))
    patch = source[top : top + sides[0], left : left + sides[1]]
    planes = [Image.fromarray(patch[..., c]).resize((width, height), Image.Resampling.BILINEAR) for c in range(3)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)
