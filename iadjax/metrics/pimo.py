"""Per-image overlap over a shared false positive rate: PIMO and AUPIMO (Bertoldo et al. 2024, AUPIMO, arXiv 2401.01984)."""

import warnings
from typing import Any, NamedTuple

import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.inputs import as_binary, as_pairs, as_scores, undefined
from iadjax.metrics.overlap import polyline

__all__ = ["PIMOCurve", "aupimo", "pimo"]


class PIMOCurve(NamedTuple):
    """The curve of one anomalous image, by its vertices in order of increasing false positive rate.

    Attributes:
      image: its place among the images.
      fpr: `[M]` float64, the shared false positive rate.
      tpr: `[M]` float64, share of the image's marked pixels that are found.
    """

    image: int
    fpr: np.ndarray
    tpr: np.ndarray


def pimo(maps: Any, masks: Any) -> list[PIMOCurve]:
    """Per-image overlap curves; exact, no binning.

    For the anomalous image i, TPR_i(t) = share of its marked pixels with score >= t, over the shared
    FPR(t) = mean over the normal images (those whose mask is empty) of the share of their pixels with score >= t. Straight
    lines in FPR join the vertices.

    Args:
      maps: `[N, H, W]`, or a list of `[H, W]` arrays whose sizes may differ; on the host.
      masks: as `maps`; bool, {0, 1} or {0, 255}.

    Returns:
      One curve per anomalous image, in order.

    Raises:
      UserError: there is no normal image, shapes differ, masks are not binary, or maps hold NaN or infinities (counted).
    """
    maps, masks = as_pairs(maps, masks)
    maps, masks = [as_scores(each, "maps") for each in maps], [as_binary(each, "masks") for each in masks]
    values, shares = _normal_pixels([each.ravel() for each, mask in zip(maps, masks, strict=True) if not mask.any()])
    curves = []
    for i, (each, mask) in enumerate(zip(maps, masks, strict=True)):
        if mask.any():
            thresholds, counts = np.unique(each[mask], return_counts=True)
            below, upto = (np.searchsorted(values, thresholds, side)[::-1] for side in ("left", "right"))
            curves.append(PIMOCurve(i, *polyline(shares[upto], shares[below], np.cumsum(counts[::-1]) / counts.sum())))
    return curves


def aupimo(maps: Any, masks: Any, fpr_bounds: tuple[float, float] = (1e-5, 1e-4)) -> np.ndarray:
    """Area under each PIMO curve over the logarithm of the shared false positive rate F, between two bounds L and U.

    AUPIMO_i = (1 / log(U / L)) * integral from L to U of TPR_i d log F; in [0, 1]. Each straight piece of the curve is
    integrated in closed form, so that there is no grid of thresholds.

    Args:
      maps, masks: as in `pimo`.
      fpr_bounds: (L, U), 0 < L < U <= 1.

    Returns:
      `[N]` float64: one area per anomalous image, NaN for normal images (`numpy.nanmean` gives the data set's figure). All NaN,
      with one warning, when there is no anomalous image. One warning when L is less than one pixel of the normal images.

    Raises:
      UserError: as `pimo`, or the bounds are out of order.
    """
    lower, upper = fpr_bounds
    if not 0 < lower < upper <= 1:
        raise UserError(f"fpr_bounds must be 0 < lower < upper <= 1, got {fpr_bounds}")
    curves = pimo(maps, masks)
    normal = sum(np.size(each) for each, mask in zip(maps, masks, strict=True) if not np.any(mask))
    if lower * normal < 1:
        warnings.warn(f"{normal} normal pixels do not resolve the FPR bound {lower:g}", RuntimeWarning, stacklevel=2)
    found = np.full(len(maps), undefined("AUPIMO needs an anomalous image") if not curves else np.nan)
    for curve in curves:
        found[curve.image] = _log_area(curve.fpr, curve.tpr, lower, upper) / np.log(upper / lower)
    return found


def _normal_pixels(normal: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of normal images ascending; and for each count of them from the bottom, the shared FPR of those above."""
    if not normal:
        raise UserError("PIMO needs normal images, whose mask is empty, for its false positive rate")
    values = np.concatenate(normal)
    if len({len(each) for each in normal}) == 1:
        return np.sort(values), np.arange(len(values), -1, -1) / len(values)
    weights = np.concatenate([np.full(len(each), 1 / (len(each) * len(normal))) for each in normal])
    order = np.argsort(values)
    above = np.concatenate([[0.0], np.cumsum(weights[order][::-1])])[::-1]
    # the sum of all weights is 1 but for rounding
    return values[order], above / above[0]


def _log_area(x: np.ndarray, y: np.ndarray, lower: float, upper: float) -> float:
    """Integral of a polyline over d log x between two bounds."""
    left, right = np.maximum(x[:-1], lower), np.minimum(x[1:], upper)
    used = left < right
    left, right = left[used], right[used]
    slope = np.diff(y)[used] / np.diff(x)[used]
    at_left = y[:-1][used] + slope * (left - x[:-1][used])
    return float(np.sum((at_left - slope * left) * np.log(right / left) + slope * (right - left)))
