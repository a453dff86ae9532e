"""AU-PRO, the area under the per-region overlap curve (Bergmann et al., CVPR 2019; IJCV 2021), exact.

PRO(t) is the mean over the connected components (8 neighbours) of all masks of the share of the component with
score >= t. FPR(t) is over all defect-free pixels of all images. The curve of PRO over FPR, one vertex per distinct score,
is integrated by trapezoids from 0 to the limit, interpolated linearly there, and divided by the limit.

The integral is a sum over the defective pixels alone. A pixel of a component of area a adds 1 / a to PRO from the FPR on
where its score is reached: after the r defect-free pixels above it, rising linearly over the e that are equal to it. With K
= limit x number of defect-free pixels, its share of the area is K - r - e / 2 (less where the limit cuts the rise).
"""

import warnings
from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from iadjax.errors import UserError
from iadjax.metrics.ranking import Ranks, rank_of

__all__ = ["area_under", "aupro", "component_weights", "pairs", "pro_curve", "split_pixels"]

_EIGHT = np.ones((3, 3), int)


def pairs(maps, masks) -> list[tuple[np.ndarray, np.ndarray]]:
    """Checked (map, mask) pairs of 2-D arrays from `[N, H, W]` arrays or from lists of images of any sizes."""
    maps, masks = list(maps), list(masks)
    if len(maps) != len(masks) or not maps:
        raise UserError(f"there must be one mask per map and at least one, got {len(maps)} maps and {len(masks)} masks")
    found, bad = [], [0, 0]
    for i, (each, mask) in enumerate(zip(maps, masks, strict=True)):
        each, mask = np.asarray(each), np.asarray(mask)
        if each.shape != mask.shape or each.ndim != 2:
            raise UserError(f"map {i} has shape {each.shape} and its mask {mask.shape}; both must be one [H, W]")
        each = each if each.dtype in (np.float32, np.float64) else each.astype(np.float64)
        if not np.isfinite(each).all():
            bad = [bad[0] + int(np.isnan(each).sum()), bad[1] + int(np.isinf(each).sum())]
        found.append((each, mask.astype(bool) if mask.dtype != bool else mask))
    if any(bad):
        raise UserError(f"maps must be finite, but {bad[0]} pixels are NaN and {bad[1]} infinite")
    return found


def component_weights(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """1 / area of its component for every pixel of a mask `[H, W]` that is set (row by row), and the number of components."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return np.zeros(0), 0
    window = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    labels, count = ndimage.label(window, _EIGHT)
    inside = labels[window]
    return 1.0 / np.bincount(inside, minlength=count + 1)[inside], count


def split_pixels(maps, masks) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(scores of defective pixels, of the others, weights of the defective ones, number of components), over all images."""
    found = pairs(maps, masks)
    components = [component_weights(mask) for _, mask in found]
    positives = np.concatenate([each[mask] for each, mask in found])
    negatives = np.concatenate([each[~mask] if count else each.ravel() for (each, mask), (_, count) in zip(found, components, strict=True)])
    return positives, negatives, np.concatenate([weights for weights, _ in components]), sum(count for _, count in components)


def area_under(found: Ranks, weights: np.ndarray, total: float, limit: float) -> float:
    """The normalised area under sum of weights / total over FPR, from 0 to the limit; see the module's text.

    Args:
      found: ranks of the positives.
      weights: `[P]` weight of each positive, in the order of the ranks' input.
      total: what the weights add up to at most (the number of components).
      limit: of the FPR, in (0, 1].
    """
    reach = limit * found.num_negatives
    room = np.maximum(reach - found.above, 0.0)
    equal = found.equal.astype(np.float64)
    # where the limit lies inside the rise, the triangle up to it; else all but half of the rise
    inside = np.where(room < equal, room**2 / (2 * np.maximum(equal, 1.0)), room - equal / 2)
    return float(np.sum(weights[found.order] * inside) / (total * reach))


def aupro(maps, masks, fpr_limit: float | Sequence[float] = 0.3):
    """Area under the PRO curve up to an FPR limit, normalised to [0, 1].

    Args:
      maps: `[N, H, W]`, or a list of `[H, W]` of any sizes; anomaly scores per pixel.
      masks: the same shapes; nonzero is defective.
      fpr_limit: in (0, 1]; several limits give a tuple from one sort.

    Returns:
      The area, or a tuple of areas; NaN, with a warning, where there is no component or no defect-free pixel.

    Raises:
      UserError: shapes differ, maps are not finite, or a limit is out of range.
    """
    limits = (fpr_limit,) if np.isscalar(fpr_limit) else tuple(fpr_limit)
    for limit in limits:
        if not 0 < limit <= 1:
            raise UserError(f"fpr_limit must be in (0, 1], got {limit}")
    positives, negatives, weights, count = split_pixels(maps, masks)
    if not count or not len(negatives):
        warnings.warn("aupro is undefined without a defect or without defect-free pixels: NaN", UserWarning, stacklevel=2)
        areas = tuple(float("nan") for _ in limits)
    else:
        found = rank_of(positives, negatives)
        areas = tuple(area_under(found, weights, count, limit) for limit in limits)
    return areas[0] if np.isscalar(fpr_limit) else areas


def pro_curve(maps, masks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The whole PRO curve: (fpr, pro, thresholds) with one vertex per distinct score, from (0, 0) to (1, 1)."""
    positives, negatives, weights, count = split_pixels(maps, masks)
    if not count or not len(negatives):
        raise UserError("a PRO curve needs a defect and defect-free pixels")
    scores = np.concatenate([positives, negatives])
    order = np.argsort(-scores, kind="stable")
    overlap = np.cumsum(np.concatenate([weights, np.zeros(len(negatives))])[order]) / count
    false = np.cumsum(order >= len(positives)) / len(negatives)
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return np.append(0, false[last]), np.append(0, overlap[last]), np.append(np.inf, scores[order][last])
