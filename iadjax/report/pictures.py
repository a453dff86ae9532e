"""Heat maps over the original pixels in colours that a run fixes, their legend, and the outline of the true defect."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from iadjax.data import Transform
from iadjax.data.images import to_float
from iadjax.data.transform import resize_map

__all__ = [
    "color_range",
    "colorize",
    "legend",
    "map_on",
    "map_range",
    "normal_range",
    "outline",
    "overlay",
    "picture",
    "shrunk",
]

# anchors of a dark-to-light map whose lightness rises all the way, so that it reads in grey as well
_ANCHORS = np.array(
    [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]],
    np.float32,
)
_CONTOUR = (64, 255, 96)


# rows that are coloured at a time: colouring takes many times the bytes of the picture
_STRIP = 256


def normal_range(pixels: np.ndarray, limit: float) -> tuple[float, float]:
    """(low, high) of a run's colours, from held-out normal images: `low` is their median pixel, and `limit` is at a third.

    So what is normal is dark, and there is room for degrees of what is not.

    Args:
      pixels: values of normal maps.
      limit: the pixel threshold, or the largest normal value.
    """
    low = float(np.median(pixels))
    return low, low + 3 * (limit - low) if limit > low else low + 1.0


def map_range(threshold: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """(low, high) of the colours as fitted with the threshold; None for runs that have none."""
    found = (threshold or {}).get("map_range")
    return None if found is None else (float(found[0]), float(found[1]))


def color_range(maps: Sequence[np.ndarray]) -> tuple[float, float]:
    """(low, high) where the run has no `map_range`: the median and the 99.9 % quantile of the pixels of these maps."""
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


def shrunk(image: np.ndarray, size: int) -> np.ndarray:
    """An image `[H, W, 3]` of at most `size` pixels on its longer side, as `picture`; 0 leaves the size."""
    height, width = image.shape[:2]
    scale = size / max(height, width)
    if not size or scale >= 1:
        return picture(image)
    target = (max(1, round(scale * width)), max(1, round(scale * height)))
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).resize(target, Image.Resampling.BILINEAR))
    planes = [resize_map(image[..., channel], target[::-1]) for channel in range(3)]
    return picture(np.clip(np.stack(planes, axis=-1), 0, 1))


def map_on(
    transform: Transform, anomaly_map: np.ndarray, original: tuple[int, int], drawn: tuple[int, int]
) -> tuple[np.ndarray, tuple[int, int]]:
    """A map of the network's input on a picture of the original, which may be smaller.

    Args:
      transform: of the run.
      anomaly_map: `[h, w]` float32.
      original: (height, width) of the original image.
      drawn: those of the picture.

    Returns:
      The values over the visible part of the picture, and the (top, left) of that part.
    """
    scales = (drawn[1] / original[1], drawn[0] / original[0])
    box = transform.geometry(*original).box
    left, top, right, bottom = (round(value * scale) for value, scale in zip(box, scales * 2, strict=True))
    left, top = min(left, drawn[1] - 1), min(top, drawn[0] - 1)
    size = (max(bottom - top, 1), max(right - left, 1))
    values = resize_map(transform.extend(anomaly_map, *original), size)
    sigma = transform.map_sigma * scales[0]
    return ndimage.gaussian_filter(values, sigma) if sigma else values, (top, left)


def overlay(
    image: np.ndarray, transform: Transform, anomaly_map: np.ndarray, low: float, high: float, size: int = 0
) -> Image.Image:
    """The heat map over the original image; outside the crop the image stays as it is.

    Args:
      image: the original, `[H, W, 3]` uint8 or float32 in [0, 1].
      transform: of the run.
      anomaly_map: `[h, w]` float32 at the network's resolution.
      low: the value of the darkest colour, see `map_range`.
      high: the value of the lightest colour.
      size: the longer side of the picture, if the image is larger; 0 = the size of the image.
    """
    drawn = shrunk(image, size).copy()
    values, (top, left) = map_on(transform, anomaly_map, image.shape[:2], drawn.shape[:2])
    for start in range(0, len(values), _STRIP):
        part = values[start : start + _STRIP]
        window = (slice(top + start, top + start + len(part)), slice(left, left + part.shape[1]))
        strength = (0.15 + 0.55 * np.clip((part - low) / (high - low), 0, 1))[..., None]
        heat = colorize(part, low, high).astype(np.float32)
        drawn[window] = np.round((1 - strength) * drawn[window] + strength * heat).astype(np.uint8)
    return Image.fromarray(drawn)


def legend(low: float, high: float, limit: float | None = None) -> Image.Image:
    """A colour bar with the values of its ends and of the pixel threshold `limit`, or of its middle where there is none."""
    width, height, margin = 360, 16, 40
    bar = colorize(np.broadcast_to(np.linspace(low, high, width, dtype=np.float32), (height, width)), low, high)
    sheet = Image.new("RGB", (width + 2 * margin, height + 44), "white")
    sheet.paste(Image.fromarray(bar), (margin, 22))
    draw = ImageDraw.Draw(sheet)
    for value in (low, (low + high) / 2 if limit is None else limit, high):
        x = margin + width * min(max((value - low) / (high - low), 0), 1)
        draw.line((x, height + 20, x, height + 25), fill="black")
        draw.text((x, height + 28), f"{value:.4g}", fill="black", anchor="ma")
    title = "anomaly map" if limit is None else f"anomaly map; from the pixel threshold {limit:.4g} on: anomalous"
    draw.text((margin + width / 2, 4), title, fill="black", anchor="ma")
    return sheet
