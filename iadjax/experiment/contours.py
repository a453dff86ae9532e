"""Outlines of anomalous regions, as polygons in pixels of the original image."""

import importlib.util
from typing import Any

import numpy as np
from scipy import ndimage

from iadjax.errors import UserError

__all__ = ["regions", "require"]

_EIGHT = np.ones((3, 3), int)


def require() -> None:
    """Raises a UserError where contourpy is missing."""
    if importlib.util.find_spec("contourpy") is None:
        raise UserError('contours need contourpy, which is not installed: python -m pip install "iadjax[contours]"')


def regions(values: np.ndarray, threshold: float, corner: tuple[int, int] = (0, 0)) -> list[dict[str, Any]]:
    """The 8-connected regions of a map where it is at least `threshold`, the highest score first.

    A polygon passes between pixels where the map, linear between their centres, crosses the threshold; at the edge of the map
    it runs along the edge. The centre of a pixel is inside if its value is above the threshold, and on the line if it is equal.

    Args:
      values: `[h, w]` float32.
      threshold: the pixel threshold.
      corner: (top, left) of the map in the original image.

    Returns:
      For each region `score`, its largest value; `area`, its number of pixels; `polygons`, each a list of rings: the outer one,
      then holes; a ring is a list of `[x, y]`, closed, where (0, 0) is the outer corner of the image's first pixel.
    """
    labelled, _ = ndimage.label(values >= threshold, structure=_EIGHT)
    found = []
    for label, window in enumerate(ndimage.find_objects(labelled), start=1):
        # a margin of one pixel, in which the polygon lies
        window = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in window)
        own, other = labelled[window] == label, labelled[window]
        part = values[window].astype(np.float64)
        # contourpy's rule is "above", ours "at least"; other regions in the window are not this one's
        part[own & (part <= threshold)] = np.nextafter(threshold, np.inf)
        part[(other > 0) & ~own] = np.nextafter(threshold, -np.inf)
        rows, columns = window
        left, top = corner[1] + columns.start, corner[0] + rows.start
        rings = _rings(part, threshold, own)
        found.append(
            {
                "score": float(values[window][own].max()),
                "area": int(own.sum()),
                "polygons": [[(np.round(ring + (left, top), 3)).tolist() for ring in each] for each in rings],
            }
        )
    return sorted(found, key=lambda region: -region["score"])


def _rings(part: np.ndarray, threshold: float, own: np.ndarray) -> list[list[np.ndarray]]:
    """Rings `[P, 2]` of every polygon of a window, with the outer corner of its first pixel at (0, 0)."""
    import contourpy

    # a ring of repeated values closes the polygons at the outer edge of the window
    padded = np.pad(part, 1, mode="edge")
    x, y = (np.concatenate([[0], np.arange(length) + 0.5, [length]]) for length in part.shape[::-1])
    made = contourpy.contour_generator(x, y, padded, fill_type="OuterOffset")
    polygons = []
    for points, offsets in zip(*made.filled(threshold, np.inf), strict=True):
        polygons.append([points[start:stop] for start, stop in zip(offsets[:-1], offsets[1:], strict=True)])
    return polygons
