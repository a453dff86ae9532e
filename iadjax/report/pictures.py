"""Heat maps over the original pixels, with the outline of the true defect."""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from iadjax.data import Transform
from iadjax.data.images import to_float

__all__ = ["color_range", "colorize", "outline", "overlay", "picture"]

# anchors of a dark-to-light map whose lightness rises all the way, so that it reads in grey as well
_ANCHORS = np.array(
    [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]],
    np.float32,
)
_CONTOUR = (64, 255, 96)


def color_range(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """(low, high) of the colours, shared by all pictures of a run: the median and the 99.9 % quantile of the pixels."""
    sample = np.concatenate([np.asarray(each).ravel()[:: max(1, np.size(each) // 4096)] for each in maps])
    low = float(np.median(sample))
    high = float(max(np.quantile(sample, 0.999), np.median([np.max(each) for each in maps])))
    return low, high if high > low else low + 1.0


def colorize(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """`[H, W]` to RGB uint8."""
    position = np.clip((values - low) / (high - low), 0, 1) * (len(_ANCHORS) - 1)
    lower = np.minimum(position.astype(int), len(_ANCHORS) - 2)
    weight = (position - lower)[..., None]
    return np.round(_ANCHORS[lower] * (1 - weight) + _ANCHORS[lower + 1] * weight).astype(np.uint8)


def picture(image: np.ndarray) -> np.ndarray:
    """An original image as RGB uint8."""
    return image if image.dtype == np.uint8 else np.round(255 * to_float(image)).astype(np.uint8)


def outline(rgb: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the border of the mask drawn in green, about one 150th of the picture wide."""
    width = max(1, round(max(mask.shape) / 150))
    grown = ndimage.binary_dilation(mask, iterations=width)
    drawn = rgb.copy()
    drawn[grown & ~mask.astype(bool)] = _CONTOUR
    return drawn


def overlay(image: np.ndarray, transform: Transform, anomaly_map: np.ndarray, low: float, high: float) -> Image.Image:
    """The heat map over the original image, at the original size; outside the crop the image stays as it is."""
    rgb = picture(image)
    values = transform.map_back(anomaly_map, *rgb.shape[:2])
    heat = colorize(values, low, high).astype(np.float32)
    strength = (0.15 + 0.55 * np.clip((values - low) / (high - low), 0, 1))[..., None]
    left, top = transform.origin(*rgb.shape[:2])
    window = (slice(top, top + values.shape[0]), slice(left, left + values.shape[1]))
    drawn = rgb.copy()
    drawn[window] = np.round((1 - strength) * rgb[window] + strength * heat).astype(np.uint8)
    return Image.fromarray(drawn)
