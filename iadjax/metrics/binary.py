"""Metrics of scores against binary labels, for images or pixels; exact, with ties as in scikit-learn.

The decision rule everywhere: anomalous if and only if score >= threshold. Scores are used raw: no sigmoid, no clamping.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.metrics.inputs import as_flat, least_at, undefined
from iadjax.metrics.overlap import namespace, ramp_area, real, total
from iadjax.metrics.ranks import Ranks, apply, rank_mixed

__all__ = [
    "PRCurve",
    "PrecisionRecallF1",
    "ROCCurve",
    "auroc",
    "average_precision",
    "best",
    "confusion",
    "f1_max",
    "flag_counts",
    "image_metrics",
    "pr_curve",
    "precision_recall_f1",
    "ranks_auroc",
    "ranks_average_precision",
    "ranks_f1_max",
    "ranks_or_none",
    "roc_curve",
    "steps",
    "vertices",
]


class ROCCurve(NamedTuple):
    """`[M]` floats over decreasing thresholds, beginning at (0, 0) with the threshold +inf.

    Float64 NumPy arrays; JAX arrays of its default float on the accelerator that the scores live on.
    """

    fpr: Any
    tpr: Any
    thresholds: Any


class PRCurve(NamedTuple):
    """`[M]` floats over decreasing thresholds, beginning at precision 1, recall 0 with the threshold +inf; as in `ROCCurve`."""

    precision: Any
    recall: Any
    thresholds: Any


class PrecisionRecallF1(NamedTuple):
    """Precision TP / (TP + FP), recall TP / (TP + FN) and their harmonic mean."""

    precision: float
    recall: float
    f1: float


def auroc(scores: Any, labels: Any) -> float:
    """Area under the ROC curve: the probability that an anomalous score exceeds a normal one; ties count half.

    AUROC = sum over pairs of ([s+ > s-] + [s+ = s-] / 2) / (P Q). That is the area by trapezoids under the ROC curve with a
    vertex at every distinct score (Fawcett, An introduction to ROC analysis, 2006).

    Args:
      scores: any shape; NumPy or JAX; higher is more anomalous. A JAX array on an accelerator is sorted there.
      labels: the shape of `scores`; bool, {0, 1} or {0, 255}.

    Returns:
      float64 as a Python float; NaN with one RuntimeWarning when a class is absent.

    Raises:
      UserError: shapes differ, labels are not binary, or scores hold NaN or infinities (they are counted).
    """
    ranks = ranks_or_none(scores, labels)
    return undefined("AUROC needs both classes") if ranks is None else apply(ranks_auroc, ranks)


def average_precision(scores: Any, labels: Any) -> float:
    """Average precision: AP = sum_n (R_n - R_{n-1}) P_n over decreasing distinct thresholds.

    The step sum of scikit-learn's `average_precision_score`, not the trapezoid under the precision-recall curve.

    Args, returns and raises as `auroc`.
    """
    ranks = ranks_or_none(scores, labels)
    return undefined("average precision needs both classes") if ranks is None else apply(ranks_average_precision, ranks)


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
    found = (undefined("F1-max needs both classes"), float("nan")) if ranks is None else apply(ranks_f1_max, ranks)
    return found if return_threshold else found[0]


def roc_curve(scores: Any, labels: Any) -> ROCCurve:
    """Every vertex of the ROC curve: TPR = TP / P over FPR = FP / Q at each distinct score, after (0, 0).

    An absent class makes its rate NaN, with one warning. Arguments and errors as `auroc`.
    """
    true, false, thresholds = vertices(*as_flat(scores, labels))
    return ROCCurve(_fraction(false), _fraction(true), thresholds)


def pr_curve(scores: Any, labels: Any) -> PRCurve:
    """Every vertex of the precision-recall curve: P = TP / (TP + FP) over R = TP / P, after precision 1 at recall 0.

    An absent class of anomalies makes the recall NaN, with one warning. Arguments and errors as `auroc`.
    """
    true, false, thresholds = vertices(*as_flat(scores, labels))
    xp = namespace(true)
    # nothing is flagged at +inf
    precision = xp.where(true + false > 0, real(true) / xp.maximum(true + false, 1), 1.0)
    return PRCurve(precision, _fraction(true), thresholds)


def _fraction(counts: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return real(counts) / counts[-1]


def confusion(scores: Any, labels: Any, threshold: float) -> tuple[int, int, int, int]:
    """(TP, FP, FN, TN) with the rule score >= threshold; errors as `auroc`."""
    scores, labels = as_flat(scores, labels)
    count = _jitted_confusion if isinstance(scores, jax.Array) else flag_counts
    true, flags, positives = (int(each) for each in count(scores, labels, least_at(threshold, scores.dtype)))
    return true, flags - true, positives - true, labels.size - positives - flags + true


def flag_counts(scores: Any, labels: Any, threshold: Any) -> tuple[Any, Any, Any]:
    """Numbers of flagged positives, of all that is flagged, and of positives; NumPy, or jax.numpy under `jax.jit`."""
    flagged = scores >= threshold
    return (flagged & labels).sum(), flagged.sum(), labels.sum()


_jitted_confusion = jax.jit(flag_counts)


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
    """`image_auroc`, `image_ap` and `image_f1max` from one sort; NaN, with one warning, when a class is absent.

    Args and raises as `auroc`.
    """
    ranks = ranks_or_none(scores, labels)
    if ranks is None:
        return dict.fromkeys(("image_auroc", "image_ap", "image_f1max"), undefined("image metrics need both classes"))
    return {
        "image_auroc": apply(ranks_auroc, ranks),
        "image_ap": apply(ranks_average_precision, ranks),
        "image_f1max": apply(ranks_f1_max, ranks)[0],
    }


def ranks_or_none(scores: Any, labels: Any) -> Ranks | None:
    """Ranks of checked inputs; None when a class is absent."""
    ranks = rank_mixed(scores, labels)
    return ranks if ranks.positives and ranks.negatives else None


def ranks_auroc(ranks: Ranks) -> Any:
    """`auroc`; both classes must be present."""
    before, at = (real(each) / ranks.negatives for each in (ranks.false_before, ranks.false))
    return total(ranks.count * ramp_area(before, at, 1.0)) / ranks.positives


def ranks_average_precision(ranks: Ranks) -> Any:
    """`average_precision`; both classes must be present."""
    return total(ranks.count * (real(ranks.true) / (ranks.true + ranks.false))) / ranks.positives


def ranks_f1_max(ranks: Ranks) -> tuple[Any, Any]:
    """`f1_max` with its threshold; both classes must be present."""
    # a further negative alone lowers F1, so the maximum is at the score of a positive
    return best(2 * real(ranks.true) / (real(ranks.true + ranks.false) + ranks.positives), ranks)


def best(values: Any, ranks: Ranks) -> tuple[Any, Any]:
    """The largest of `values` at the scores of positives, and the highest threshold that reaches it."""
    xp = namespace(values)
    values = xp.where(ranks.count > 0, values, -1.0)
    index = xp.argmax(values)
    return values[index], ranks.thresholds[index]


def vertices(
    scores: Any, labels: Any, weights: Any = None, reason: str = "a curve needs both classes; the rate of the absent one"
) -> tuple[Any, Any, Any]:
    """True and false positives at +inf and at every distinct score, descending; on the device of the scores.

    Args:
      scores: `[n]` checked floats.
      labels: `[n]` bool.
      weights: `[n]` floats, what a positive counts; None: 1.
      reason: of the warning when a class is absent.
    """
    xp = namespace(scores)
    if labels.size == 0 or labels.all() or not labels.any():
        undefined(reason)
    true, false, thresholds, last = (jitted_steps if xp is jnp else steps)(scores, labels, weights)
    keep = xp.concatenate([xp.ones(1, bool), last])
    return true[keep], false[keep], thresholds[keep]


def steps(scores: Any, labels: Any, weights: Any = None) -> tuple[Any, Any, Any, Any]:
    """The curve at each of n sorted scores, in fixed shapes: NumPy, or jax.numpy under `jax.jit`.

    Returns:
      `[n + 1]` true and false positives and thresholds, from +inf; `[n]` bool, whether a score is the last of those tied with
      it: only there are the counts those of its threshold.
    """
    xp = namespace(scores)
    order = xp.argsort(-scores, stable=True)
    descending, hit = scores[order], labels[order]
    last = xp.concatenate([descending[1:] != descending[:-1], xp.ones(min(1, scores.size), bool)])
    gained = hit.astype(int) if weights is None else xp.where(hit, weights[order], 0)
    true, false = (xp.concatenate([xp.zeros(1, each.dtype), xp.cumsum(each)]) for each in (gained, (~hit).astype(int)))
    return true, false, xp.concatenate([xp.full(1, xp.inf, scores.dtype), descending]), last


jitted_steps = jax.jit(steps)
