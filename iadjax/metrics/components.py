"""Connected components of defect masks: the regions that AU-PRO weighs equally."""

from typing import Any

import numpy as np
from scipy import ndimage

__all__ = ["region_areas"]

_EIGHT = np.ones((3, 3), int)


def region_areas(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """For every marked pixel the area of its 8-connected component.

    Args:
      mask: `[H, W]` bool.

    Returns:
      `[P]` int64 areas in pixels, in C order of the P marked pixels; and the number of components.
    """
    box = _box(mask)
    if box is None:
        return np.zeros(0, np.int64), 0
    mask = mask[box]
    labelled, count = ndimage.label(mask, structure=_EIGHT)
    labels = labelled[mask]
    return np.bincount(labels)[labels], count


def _box(mask: np.ndarray) -> Any:
    """Slices of the bounding box of the marked pixels; None when there are none."""
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    inside = slice(rows[0], rows[-1] + 1)
    columns = np.flatnonzero(mask[inside].any(axis=0))
    return inside, slice(columns[0], columns[-1] + 1)
