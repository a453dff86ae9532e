"""Decision thresholds from scores of normal images alone. The rule everywhere: anomalous if score >= threshold."""

import inspect
from collections.abc import Callable

import numpy as np
from scipy import stats

from iadjax.errors import UserError, did_you_mean
from iadjax.metrics.ranking import precision_recall_f1

__all__ = ["extreme_value", "fit_threshold", "k_sigma", "quantile", "target_fpr", "threshold_report"]


def quantile(scores: np.ndarray, q: float = 0.99) -> float:
    """The q-quantile of the normal scores (linear interpolation), q in [0, 1]."""
    if not 0 <= q <= 1:
        raise UserError(f"threshold.q must be in [0, 1], got {q}")
    return float(np.quantile(scores, q))


def k_sigma(scores: np.ndarray, k: float = 3.0) -> float:
    """Mean plus k standard deviations (ddof 1) of the normal scores."""
    if len(scores) < 2:
        raise UserError(f"the threshold k_sigma needs at least 2 normal images, got {len(scores)}; raise threshold.holdout")
    return float(np.mean(scores) + k * np.std(scores, ddof=1))


def target_fpr(scores: np.ndarray, fpr: float = 0.05) -> float:
    """The lowest threshold at which at most a share `fpr` of the normal scores is called anomalous.

    The mid-point between the two scores around it, so that no image sits on the threshold.
    """
    if not 0 <= fpr <= 1:
        raise UserError(f"threshold.fpr must be in [0, 1], got {fpr}")
    values, first = np.unique(scores, return_index=False), np.sort(scores)
    # share of scores >= v for each distinct v
    share = 1 - np.searchsorted(first, values, "left") / len(scores)
    allowed = np.flatnonzero(share <= fpr)
    if not len(allowed):
        return float(np.nextafter(values[-1], np.inf))
    lowest = allowed[0]
    return float((values[lowest - 1] + values[lowest]) / 2) if lowest else float(values[0])


def extreme_value(scores: np.ndarray, fpr: float = 0.01, tail: float = 0.2) -> float:
    """The (1 - fpr) quantile of a generalised Pareto distribution fitted to the tail (peaks over threshold).

    Reaches beyond the largest score seen. Source: Pickands, Annals of Statistics 1975; Siffer et al., KDD 2017.

    Args:
      scores: normal scores; at least 10 in the tail.
      fpr: target false positive rate, below `tail`.
      tail: share of the largest scores that the distribution is fitted to.
    """
    if not 0 < fpr < tail < 1:
        raise UserError(f"the threshold extreme_value needs 0 < fpr < tail < 1, got fpr={fpr} and tail={tail}")
    start = np.quantile(scores, 1 - tail)
    excess = scores[scores > start] - start
    if len(excess) < 10:
        raise UserError(
            f"the threshold extreme_value needs 10 normal scores in its tail, got {len(excess)} of {len(scores)}; raise "
            "threshold.holdout or threshold.tail"
        )
    shape, _, scale = stats.genpareto.fit(excess, floc=0)
    return float(start + stats.genpareto.ppf(1 - fpr * len(scores) / len(excess), shape, 0, scale))


_RULES: dict[str, Callable[..., float]] = {
    "quantile": quantile,
    "k_sigma": k_sigma,
    "target_fpr": target_fpr,
    "extreme_value": extreme_value,
}


def fit_threshold(name: str, scores, **options) -> float:
    """The threshold by the rule `name` from scores of normal images.

    Args:
      name: "quantile" (q), "k_sigma" (k), "target_fpr" (fpr) or "extreme_value" (fpr, tail).
      scores: `[N]` raw scores of normal images.
      **options: keywords of the rule.

    Raises:
      UserError: no such rule or keyword, no scores, or a score that is not finite.
    """
    if name not in _RULES:
        raise UserError(f"there is no threshold {name!r}; {did_you_mean(name, _RULES)}")
    known = [key for key in inspect.signature(_RULES[name]).parameters if key != "scores"]
    for key in options:
        if key not in known:
            raise UserError(f"the threshold {name!r} has no key {key!r}; {did_you_mean(key, known)}")
    scores = np.asarray(scores, np.float64).ravel()
    if not len(scores) or not np.isfinite(scores).all():
        raise UserError(f"a threshold needs finite scores of normal images, got {len(scores)} of which some may not be finite")
    return _RULES[name](scores, **options)


def threshold_report(threshold: float, scores, labels) -> dict[str, float]:
    """What a threshold achieves on labelled images: {"fpr", "tpr", "precision", "recall", "f1"}."""
    found = precision_recall_f1(scores, labels, threshold)
    return {"fpr": found.fpr, "tpr": found.recall, "precision": found.precision, "recall": found.recall, "f1": found.f1}
