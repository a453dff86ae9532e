"""Metrics of scores against binary labels, for images or pixels alike: exact, ties handled as scikit-learn does.

The decision rule everywhere: anomalous if and only if score >= threshold. Scores are used raw: no sigmoid, no clamping.
"""

from typing import Any, NamedTuple

import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.inputs import as_binary, as_scores, undefined
from iadjax.metrics.ranks import Ranks, rank_mixed

__all__ = [
    "PRCurve",
    "PrecisionRecallF1",
    "ROCCurve",
    "auroc",
    "average_precision",
    "confusion",
    "f1_max",
    "image_metrics",
    "pr_curve",
    "precision_recall_f1",
    "ranks_auroc",
    "ranks_average_precision",
    "ranks_f1_max",
    "ranks_or_none",
    "roc_curve",
]


class ROCCurve(NamedTuple):
    """Float64 arrays over decreasing thresholds, beginning at (0, 0) with the threshold +inf."""

    fpr: np.ndarray
    tpr: np.ndarray
    thresholds: np.ndarray


class PRCurve(NamedTuple):
    """Float64 arrays over decreasing thresholds, beginning at precision 1, recall 0 with the threshold +inf."""

    precision: np.ndarray
    recall: np.ndarray
    thresholds: np.ndarray


class PrecisionRecallF1(NamedTuple):
    """Precision TP / (TP + FP), recall TP / (TP + FN) and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def auroc(scores: Any, labels: Any) -> float:
    """Area under the ROC curve: the chance that an anomalous score exceeds a normal one, ties counting half.

    AUROC = sum over pairs of ([s+ > s-] + [s+ = s-] / 2) / (P Q), which is the trapezoid under the ROC curve whose vertices
    are all distinct scores (Fawcett 2006, An introduction to ROC analysis).

    Args:
      scores: any shape; NumPy or JAX; higher is more anomalous. A JAX array on an accelerator is sorted there.
      labels: the shape of `scores`; bool, {0, 1} or {0, 255}.

    Returns:
      float64 as a Python float; NaN with one RuntimeWarning when a class is absent.

    Raises:
      UserError: shapes differ, labels are not binary, or scores hold NaN or infinities (they are counted).
    """
    ranks = ranks_or_none(scores, labels)
    return undefined("AUROC needs both classes") if ranks is None else ranks_auroc(ranks)


def average_precision(scores: Any, labels: Any) -> float:
    """Average precision: AP = sum_n (R_n - R_{n-1}) P_n over decreasing distinct thresholds.

    The step sum of scikit-learn's `average_precision_score`, not the trapezoid under the precision-recall curve.

    Args, returns and raises as `auroc`.
    """
    ranks = ranks_or_none(scores, labels)
    return undefined("average precision needs both classes") if ranks is None else ranks_average_precision(ranks)


def f1_max(scores: Any, labels: Any, return_threshold: bool = False) -> float | tuple[float, float]:
    """Maximum over thresholds of F1 = 2 TP / (2 TP + FP + FN).

    Args:
      scores, labels: as in `auroc`.
      return_threshold: also return the threshold, the highest that reaches the maximum; scores equal to it are anomalous.

    Returns:
      F1, or (F1, threshold); NaN with one warning when a class is absent.

    Raises:
      UserError: as `auroc`.
    """
    ranks = ranks_or_none(scores, labels)
    found = (undefined("F1-max needs both classes"), float("nan")) if ranks is None else ranks_f1_max(ranks)
    return found if return_threshold else found[0]


def roc_curve(scores: Any, labels: Any) -> ROCCurve:
    """Every vertex of the ROC curve: TPR = TP / P over FPR = FP / Q at each distinct score, after (0, 0).

    An absent class makes its rate NaN, with one warning. Arguments and errors as `auroc`; computed on the host.
    """
    true, false, thresholds, positives, negatives = _vertices(scores, labels)
    with np.errstate(invalid="ignore"):
        return ROCCurve(false / np.float64(negatives), true / np.float64(positives), thresholds)


def pr_curve(scores: Any, labels: Any) -> PRCurve:
    """Every vertex of the precision-recall curve: P = TP / (TP + FP) over R = TP / P, after precision 1 at recall 0.

    An absent class of anomalies makes the recall NaN, with one warning. Arguments and errors as `auroc`; on the host.
    """
    true, false, thresholds, positives, _ = _vertices(scores, labels)
    with np.errstate(invalid="ignore"):
        precision = np.concatenate([[1.0], true[1:] / (true[1:] + false[1:])])
        return PRCurve(precision, true / np.float64(positives), thresholds)


def confusion(scores: Any, labels: Any, threshold: float) -> tuple[int, int, int, int]:
    """(TP, FP, FN, TN) with the rule score >= threshold; errors as `auroc`."""
    scores, labels = _pair(scores, labels)
    # in float64: a threshold must not be rounded onto a float32 score
    flagged = scores.astype(np.float64, copy=False) >= threshold
    true, flags, positives = int(np.sum(flagged & labels)), int(flagged.sum()), int(labels.sum())
    return true, flags - true, positives - true, labels.size - positives - flags + true


def precision_recall_f1(scores: Any, labels: Any, threshold: float) -> PrecisionRecallF1:
    """Precision, recall and F1 of the rule score >= threshold.

    Precision is 0 where nothing is flagged, as in scikit-learn. With a class absent all three are NaN, with one warning.

    Args:
      scores, labels: as in `auroc`.
      threshold: in the units of the scores.

    Raises:
      UserError: as `auroc`.
    """
    true, false, missed, rest = confusion(scores, labels, threshold)
    if true + missed == 0 or false + rest == 0:
        return PrecisionRecallF1(*[undefined("precision, recall and F1 need both classes")] * 3)
    return PrecisionRecallF1(true / max(true + false, 1), true / (true + missed), 2 * true / (2 * true + false + missed))


def image_metrics(scores: Any, labels: Any) -> dict[str, float]:
    """`image_auroc`, `image_ap` and `image_f1max` from one sorted pass; NaN, with one warning, when a class is absent.

    Args and raises as `auroc`.
    """
    ranks = ranks_or_none(scores, labels)
    if ranks is None:
        return dict.fromkeys(("image_auroc", "image_ap", "image_f1max"), undefined("image metrics need both classes"))
    return {
        "image_auroc": ranks_auroc(ranks),
        "image_ap": ranks_average_precision(ranks),
        "image_f1max": ranks_f1_max(ranks)[0],
    }


def ranks_or_none(scores: Any, labels: Any) -> Ranks | None:
    """Ranks of checked inputs; None when a class is absent."""
    if np.shape(scores) != np.shape(labels):
        raise UserError(f"scores {np.shape(scores)} and labels {np.shape(labels)} must have one shape")
    ranks = rank_mixed(scores, labels)
    return ranks if ranks.positives and ranks.negatives else None


def ranks_auroc(ranks: Ranks) -> float:
    """`auroc` of both classes present."""
    wins = ranks.negatives - (ranks.false + ranks.false_before) / 2
    return float(np.sum(np.diff(ranks.true, prepend=0) * wins) / (ranks.positives * ranks.negatives))


def ranks_average_precision(ranks: Ranks) -> float:
    """`average_precision` of both classes present."""
    return float(np.sum(np.diff(ranks.true, prepend=0) * (ranks.true / (ranks.true + ranks.false))) / ranks.positives)


def ranks_f1_max(ranks: Ranks) -> tuple[float, float]:
    """`f1_max` with its threshold, of both classes present."""
    # passing a negative alone lowers F1, so that the maximum lies at the score of a positive
    f1 = 2 * ranks.true / (ranks.true + ranks.false + ranks.positives)
    best = int(np.argmax(f1))
    return float(f1[best]), float(ranks.thresholds[best])


def _pair(scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = as_scores(scores), as_binary(labels)
    if scores.shape != labels.shape:
        raise UserError(f"scores {scores.shape} and labels {labels.shape} must have one shape")
    return scores.ravel(), labels.ravel()


def _vertices(scores: Any, labels: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """True and false positives at +inf and at every distinct score, descending."""
    scores, labels = _pair(scores, labels)
    positives, negatives = np.sort(scores[labels]), np.sort(scores[~labels])
    if not len(positives) or not len(negatives):
        undefined("a curve needs both classes; the rate of the absent one")
    thresholds = np.unique(scores)[::-1]
    true, false = (len(each) - np.searchsorted(each, thresholds) for each in (positives, negatives))
    start = np.zeros(1, int)
    return (
        np.concatenate([start, true]), np.concatenate([start, false]), np.concatenate([[np.inf], thresholds]),
        len(positives), len(negatives),
    )  # fmt: skip
