"""Metrics of anomaly maps against masks, pooled over all pixels of all images, from one sort."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from iadjax.metrics.binary import best, confusion, ranks_auroc, ranks_average_precision, ranks_f1_max, vertices
from iadjax.metrics.components import region_areas
from iadjax.metrics.inputs import all_on_accelerator, as_binary, as_flat, as_pairs, as_scores, undefined
from iadjax.metrics.overlap import check_limits, namespace, real
from iadjax.metrics.ranks import Ranks, apply, overlap_area, rank, rank_mixed

__all__ = ["LIMITS", "PROCurve", "aupro", "dice", "iou_max", "pixel_metrics", "pro_curve", "ranks_iou_max"]

LIMITS = {"aupro": 0.3, "aupro_05": 0.05, "aupro_01": 0.01}
"""FPR limits of the reported AU-PRO figures."""


class PROCurve(NamedTuple):
    """`[M]` floats over decreasing thresholds, beginning at (0, 0) with the threshold +inf; of the kinds of a `ROCCurve`."""

    fpr: Any
    pro: Any
    thresholds: Any


def aupro(maps: Any, masks: Any, fpr_limit: float | Sequence[float] = 0.3) -> float | tuple[float, ...]:
    """Area under the per-region overlap over the false positive rate, to a limit and divided by it; exact.

    PRO(t) = (1 / K) sum_k |{score >= t} & C_k| / |C_k| over the K 8-connected components C_k of all masks.
    FPR(t) = fraction of the defect-free pixels of all images with score >= t.
    AU-PRO = (1 / limit) * integral from 0 to limit of PRO d FPR, by trapezoids, with linear interpolation at the limit.

    The curve begins at (0, 0) and has a vertex at every distinct score; tied pixels are one step. There is no binning.
    Source: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021.

    Args:
      maps: `[N, H, W]`, or a list of `[H, W]` arrays whose sizes may differ; float32 or float64; NumPy or JAX. A JAX array on
        an accelerator is sorted and summed there; only the labelling of components runs on the host.
      masks: as `maps`; bool, {0, 1} or {0, 255}.
      fpr_limit: in (0, 1], or several.

    Returns:
      A float, or a tuple with one per limit, from one sort. NaN with one RuntimeWarning when there is no component or no
      defect-free pixel.

    Raises:
      UserError: shapes differ, masks are not binary, maps hold NaN or infinities (counted), or a limit is out of range.
    """
    check_limits(fpr_limit)
    ranks = _ranks(maps, masks)
    if ranks is None:
        nan = undefined("AU-PRO needs a defect and defect-free pixels")
        return (nan,) * len(fpr_limit) if isinstance(fpr_limit, Sequence) else nan
    areas = _areas(ranks, fpr_limit if isinstance(fpr_limit, Sequence) else (fpr_limit,))
    return areas if isinstance(fpr_limit, Sequence) else areas[0]


def pro_curve(maps: Any, masks: Any) -> PROCurve:
    """Every vertex of the curve under `aupro`: (FPR, PRO) at each distinct score, after (0, 0).

    Arguments and errors as `aupro`. Without a component, or without a defect-free pixel, that axis is NaN, with one warning.
    """
    scores, labels, weights = _flat(*as_pairs(maps, masks))
    spread = np.zeros(labels.size)
    spread[labels] = weights
    scores, labels = as_flat(scores, labels, "maps", "masks")
    weights = namespace(scores).asarray(spread, real(scores[:0]).dtype)
    reason = "the PRO curve needs a defect and defect-free pixels; the axis of the absent one"
    covered, false, thresholds = vertices(scores, labels, weights, reason)
    # a running sum of fractions ends at 1 but for rounding
    with np.errstate(invalid="ignore"):
        return PROCurve(real(false) / false[-1], covered / covered[-1], thresholds)


def pixel_metrics(maps: Any, masks: Any) -> dict[str, float]:
    """All pixel metrics from one sort.

    `pixel_auroc`, `pixel_ap`, `pixel_f1max` (definitions: `auroc`, `average_precision`, `f1_max` over the pooled pixels) and
    `aupro`, `aupro_05`, `aupro_01` (AU-PRO to the FPR limits .3, .05, .01).

    Args, dtypes and raises as `aupro`. All NaN, with one warning, without a defect or without a defect-free pixel.
    """
    ranks = _ranks(maps, masks)
    if ranks is None:
        keys = ("pixel_auroc", "pixel_ap", "pixel_f1max", *LIMITS)
        return dict.fromkeys(keys, undefined("pixel metrics need a defect and defect-free pixels"))
    found = {
        "pixel_auroc": apply(ranks_auroc, ranks),
        "pixel_ap": apply(ranks_average_precision, ranks),
        "pixel_f1max": apply(ranks_f1_max, ranks)[0],
    }
    return found | dict(zip(LIMITS, _areas(ranks, LIMITS.values()), strict=True))


def iou_max(maps: Any, masks: Any, return_threshold: bool = False) -> float | tuple[float, float]:
    """Maximum over thresholds of the intersection over union of the anomalous pixels: TP / (TP + FP + FN), pooled.

    Args:
      maps, masks: as in `aupro`.
      return_threshold: also return the threshold, the highest that reaches the maximum.

    Returns:
      IoU, or (IoU, threshold); NaN with one warning without a defect or without a defect-free pixel.

    Raises:
      UserError: as `aupro`.
    """
    ranks = _ranks(maps, masks)
    if ranks is None:
        found = undefined("IoU-max needs a defect and defect-free pixels"), float("nan")
    else:
        found = apply(ranks_iou_max, ranks)
    return found if return_threshold else found[0]


def dice(maps: Any, masks: Any, threshold: float) -> float:
    """Dice coefficient 2 TP / (2 TP + FP + FN) of the pixels with score >= threshold, pooled; it equals the pixel F1.

    Args:
      maps, masks: as in `aupro`; counted on the accelerator where the maps live on one.
      threshold: in the units of the maps.

    Returns:
      A float; NaN with one warning when no pixel is marked and none is flagged.

    Raises:
      UserError: as `aupro`.
    """
    maps, masks = as_pairs(maps, masks)
    pairs = zip(maps, masks, strict=True) if isinstance(maps, list) else [(maps, masks)]
    counts = [confusion(each, mask, threshold) for each, mask in pairs]
    true, false, missed, _ = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0, 0)
    if true + false + missed == 0:
        return undefined("Dice of nothing with nothing")
    return 2 * true / (2 * true + false + missed)


def ranks_iou_max(ranks: Ranks) -> tuple[Any, Any]:
    """`iou_max` with its threshold; both classes must be present."""
    return best(real(ranks.true) / (real(ranks.false) + ranks.positives), ranks)


def _areas(ranks: Ranks, limits: Iterable[float]) -> tuple[float, ...]:
    return tuple(apply(overlap_area, ranks, limit) for limit in limits)


def _ranks(maps: Any, masks: Any) -> Ranks | None:
    """Ranks of the pixels, weighted for PRO; None when a class is absent."""
    maps, masks = as_pairs(maps, masks)
    ranks = rank_mixed(*_flat(maps, masks)) if all_on_accelerator(maps) else rank(*_split(maps, masks))
    return ranks if ranks.positives and ranks.negatives else None


def _flat(maps: Any, masks: Any) -> tuple[Any, Any, np.ndarray]:
    """All scores, all labels on the host, and the PRO weight of each defect pixel."""
    marked = [as_binary(each, "masks") for each in masks]
    labels = np.concatenate([each.ravel() for each in marked] or [np.zeros(0, bool)])
    scores: Any
    if all_on_accelerator(maps):
        scores = jnp.ravel(maps) if not isinstance(maps, list) else jnp.concatenate([jnp.ravel(each) for each in maps])
    else:
        scores = np.concatenate([np.ravel(each) for each in maps] or [np.zeros(0)])
    return scores, labels, _weights(marked)


def _split(maps: Any, masks: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores of the defect pixels, scores of the others, and the PRO weight of each defect pixel."""
    if isinstance(maps, list):
        maps, masks = [as_scores(each, "maps") for each in maps], [as_binary(each, "masks") for each in masks]
        empty = [np.zeros(0, np.float32)]
        positives = np.concatenate([each[mask] for each, mask in zip(maps, masks, strict=True)] or empty)
        negatives = np.concatenate([each[~mask] for each, mask in zip(maps, masks, strict=True)] or empty)
    else:
        maps, masks = as_scores(maps, "maps"), as_binary(masks, "masks")
        positives, negatives = maps[masks], maps[~masks]
    return positives, negatives, _weights(masks)


def _weights(masks: Any) -> np.ndarray:
    """1 / (area of the component * number of components) for every marked pixel, in C order."""
    found = [region_areas(mask) for mask in masks]
    count = sum(number for _, number in found)
    return 1 / (np.concatenate([area for area, _ in found] or [np.ones(0)]) * max(count, 1))
