"""Metrics of a ranking: AUROC, average precision, F1-max and their curves; exact, ties as in scikit-learn.

All of them follow from how many negatives lie above each positive, so the negatives are sorted once (by value, without an
argsort) and the few positives are looked up in them. Scores are compared as they are: no transform, no binning.
"""

import warnings
from typing import NamedTuple

import numpy as np

from iadjax.errors import UserError

__all__ = ["Curve", "Decisions", "Ranks", "auroc", "average_precision", "f1_max", "pr_curve", "precision_recall_f1", "ranks", "roc_curve"]


class Ranks(NamedTuple):
    """Where the positives stand among the negatives.

    Attributes:
      positives: `[P]` their scores, ascending.
      above: `[P]` int64; negatives with a higher score.
      equal: `[P]` int64; negatives with the same score.
      num_negatives: how many negatives there are.
      order: `[P]` positions of `positives` in the input, among the positives.
    """

    positives: np.ndarray
    above: np.ndarray
    equal: np.ndarray
    num_negatives: int
    order: np.ndarray


def _checked(scores, labels) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores).ravel(), np.asarray(labels).ravel()
    if scores.shape != labels.shape:
        raise UserError(f"scores and labels must have one shape, got {scores.size} and {labels.size} values")
    if scores.dtype.kind not in "fiu":
        raise UserError(f"scores must be real numbers, got {scores.dtype}")
    scores = scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)
    if not np.isfinite(scores).all():
        nan, infinite = int(np.isnan(scores).sum()), int(np.isinf(scores).sum())
        raise UserError(f"scores must be finite, but {nan} are NaN and {infinite} infinite of {scores.size}")
    labels = labels.astype(bool) if labels.dtype != bool else labels
    return scores, labels


def ranks(scores, labels) -> Ranks:
    """Counts the negatives above and beside every positive.

    Args:
      scores: of any shape, finite; float32 and float64 are compared as they are.
      labels: of the same shape; nonzero is positive.

    Raises:
      UserError: shapes differ, or scores are not finite (they are counted).
    """
    scores, labels = _checked(scores, labels)
    return rank_of(scores[labels], scores[~labels])


def rank_of(positives: np.ndarray, negatives: np.ndarray) -> Ranks:
    """`ranks` of two separate arrays."""
    negatives = np.sort(negatives)
    order = np.argsort(positives, kind="stable")
    positives = positives[order]
    right = np.searchsorted(negatives, positives, "right")
    left = np.searchsorted(negatives, positives, "left")
    return Ranks(positives, len(negatives) - right, right - left, len(negatives), order)


def _undefined(name: str, found: Ranks) -> bool:
    if len(found.positives) and found.num_negatives:
        return False
    missing = "positive" if not len(found.positives) else "negative"
    warnings.warn(f"{name} is undefined without {missing} samples: NaN", UserWarning, stacklevel=3)
    return True


def auroc(scores, labels) -> float:
    """Area under the ROC curve: the share of (positive, negative) pairs in the right order, ties counted half.

    Args:
      scores: `[...]`, larger is more anomalous.
      labels: `[...]`, nonzero is anomalous.

    Returns:
      The area in [0, 1]; NaN, with a warning, where one class is absent.

    Raises:
      UserError: shapes differ, or scores are not finite.

    Source: Hanley & McNeil, Radiology 1982 (the Mann-Whitney form).
    """
    found = ranks(scores, labels)
    return float("nan") if _undefined("auroc", found) else auroc_of(found)


def auroc_of(found: Ranks) -> float:
    """`auroc` from ranks."""
    total = found.num_negatives * len(found.positives)
    return float((total - found.above.sum(dtype=np.float64) - 0.5 * found.equal.sum(dtype=np.float64)) / total)


def average_precision(scores, labels) -> float:
    """Average precision, the step sum over thresholds of (R_n - R_(n-1)) P_n; not the trapezoid under the PR curve.

    Returns:
      A value in [0, 1]; NaN, with a warning, without positives. Arguments and errors as in `auroc`.
    """
    found = ranks(scores, labels)
    if not len(found.positives):
        return float("nan") if _undefined("average_precision", found) else 0.0
    return average_precision_of(found)


def _at_thresholds(found: Ranks) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(threshold, true positives, false positives) at every distinct score of a positive, descending."""
    # the last index of each run of equal positives comes first when they are read from the top
    values, first = np.unique(found.positives, return_index=True)
    true = len(found.positives) - first
    false = found.above[first] + found.equal[first]
    return values[::-1], true[::-1].astype(np.float64), false[::-1].astype(np.float64)


def average_precision_of(found: Ranks) -> float:
    """`average_precision` from ranks: recall changes at scores of positives only."""
    _, true, false = _at_thresholds(found)
    steps = np.diff(true, prepend=0.0)
    return float(np.sum(steps * (true / (true + false))) / len(found.positives))


def f1_max(scores, labels, return_threshold: bool = False):
    """The largest F1 = 2 P R / (P + R) over all thresholds, under the rule score >= threshold.

    Args:
      scores, labels: as in `auroc`.
      return_threshold: also return the threshold; the highest one where several reach the maximum.

    Returns:
      F1, or (F1, threshold); NaN, with a warning, without positives.
    """
    found = ranks(scores, labels)
    if not len(found.positives):
        _undefined("f1_max", found)
        return (float("nan"), float("nan")) if return_threshold else float("nan")
    best = f1_max_of(found)
    return best if return_threshold else best[0]


def f1_max_of(found: Ranks) -> tuple[float, float]:
    """(F1, threshold) from ranks: between two scores of positives a lower threshold only adds false positives."""
    thresholds, true, false = _at_thresholds(found)
    f1 = 2 * true / (true + false + len(found.positives))
    best = int(np.argmax(f1))
    return float(f1[best]), float(thresholds[best])


class Curve(NamedTuple):
    """A curve over all distinct thresholds, descending, under the rule score >= threshold.

    Attributes:
      thresholds: `[T]`; the first of a ROC curve is +inf.
      true_positives, false_positives: `[T]` counts.
      positives, negatives: totals.
    """

    thresholds: np.ndarray
    true_positives: np.ndarray
    false_positives: np.ndarray
    positives: int
    negatives: int

    @property
    def tpr(self) -> np.ndarray:
        """True positive rate, the recall."""
        return self.true_positives / self.positives

    recall = tpr

    @property
    def fpr(self) -> np.ndarray:
        """False positive rate."""
        return self.false_positives / self.negatives

    @property
    def precision(self) -> np.ndarray:
        """TP / (TP + FP); 1 where nothing is called positive."""
        called = self.true_positives + self.false_positives
        return np.where(called > 0, self.true_positives / np.maximum(called, 1), 1.0)


def roc_curve(scores, labels) -> Curve:
    """The ROC curve (`fpr`, `tpr`), from (0, 0) to (1, 1), one vertex per distinct score.

    Raises:
      UserError: shapes differ, scores are not finite, or a class is absent.
    """
    scores, labels = _checked(scores, labels)
    if labels.all() or not labels.any():
        raise UserError("a curve needs samples of both classes")
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], labels[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)
    true = np.cumsum(hits)[last]
    thresholds = np.append(np.inf, ordered[last].astype(np.float64))
    return Curve(thresholds, np.append(0, true), np.append(0, last + 1 - true), int(labels.sum()), int((~labels).sum()))


def pr_curve(scores, labels) -> Curve:
    """The curve of `precision` over `recall`; the vertices of `roc_curve`, the first one at recall 0 with precision 1."""
    return roc_curve(scores, labels)


class Decisions(NamedTuple):
    """Quality of the rule score >= threshold; NaN where a rate has no samples."""

    precision: float
    recall: float
    f1: float
    fpr: float


def precision_recall_f1(scores, labels, threshold: float) -> Decisions:
    """Precision, recall, F1 and false positive rate at one threshold; precision is 0 where nothing is called positive."""
    scores, labels = _checked(scores, labels)
    called = scores >= threshold
    true = int((called & labels).sum())
    false = int((called & ~labels).sum())
    positives, negatives = int(labels.sum()), int((~labels).sum())
    return Decisions(
        precision=true / (true + false) if true + false else 0.0,
        recall=true / positives if positives else float("nan"),
        f1=2 * true / (true + false + positives) if positives else float("nan"),
        fpr=false / negatives if negatives else float("nan"),
    )
