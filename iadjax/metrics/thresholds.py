"""Thresholds from the scores of normal images alone, and what they achieve on a test set.

The decision rule everywhere: anomalous if and only if score >= threshold.
"""

import inspect
import math
import warnings
from typing import Any

import numpy as np
import scipy

from iadjax.errors import UserError, did_you_mean
from iadjax.metrics.binary import confusion
from iadjax.metrics.inputs import as_scores

__all__ = ["DEFAULTS", "check_threshold", "fit_threshold", "threshold_options", "threshold_report"]

DEFAULTS = {"quantile": 0.99, "num_sigmas": 3.0, "fpr": 0.01, "tail_fraction": 0.1, "false_alarms": 1.0}
"""Default of every option of a rule, here and in configs."""

_MIN_EXCEEDANCES = 10


def fit_threshold(name: str, scores: Any, **options: float) -> float:
    """A threshold from scores of normal images, which the detector was not fitted on.

    Args:
      name: the rule, with its options:
        "quantile": the quantile `quantile` of the scores, interpolated linearly.
        "k_sigma": mean + `num_sigmas` * standard deviation.
        "extreme_value": peaks over threshold (Siffer et al., KDD 2017). A generalised Pareto tail (shape g, scale s) is fitted
          by maximum likelihood to the n_u of n scores above u, the 1 - `tail_fraction` quantile. The threshold is
          u + (s / g) ((fpr n / n_u)^-g - 1). A normal image passes it with probability `fpr`, which may be below 1 / n.
        "target_fpr": the lowest threshold that flags at most the fraction `fpr` of these scores.
        "a_contrario": for scores that are -log10 of a number of false alarms (Desolneux et al., 2000): -log10 `false_alarms`,
          the number of them that is expected in a normal image. It follows from the theory, and needs no scores.
      scores: any shape, at least one finite value; "a_contrario" takes none as well.
      options: keywords of the rule; `DEFAULTS` has what is left out.

    Returns:
      The threshold in the units of the scores.

    Raises:
      UserError: unknown name or option, a value out of range, no scores, NaN or infinities, or too few scores for a tail.
    """
    known = threshold_options(name)
    for key in options:
        if key not in known:
            raise UserError(f"the threshold rule {name!r} has no option {key!r}; {did_you_mean(key, known)}")
    scores = as_scores(scores).ravel()
    if not scores.size and name != "a_contrario":
        raise UserError("a threshold needs the scores of at least one normal image; hold some out")
    return _RULES[name](scores, **options)


def check_threshold(name: str, number: int | None = None, **options: float) -> None:
    """What `fit_threshold` would refuse, before there are scores.

    Args:
      name: the rule.
      number: how many scores there will be, if that is known; "extreme_value" needs some in its tail.
      options: keywords of the rule; others are left aside.

    Raises:
      UserError: an unknown rule, a value out of range, or too few scores.
    """
    options = {key: options.get(key, DEFAULTS[key]) for key in threshold_options(name)}
    for key, value in options.items():
        _check(key, value)
    if name == "extreme_value":
        _check_tail(options["fpr"], options["tail_fraction"])
        if number is not None:
            above = number - 1 - int((number - 1) * (1 - options["tail_fraction"]))
            _check_exceedances(above, number, options["tail_fraction"])


def threshold_options(name: str) -> tuple[str, ...]:
    """The keywords of the rule `name`; a UserError lists the rules if there is none."""
    if name not in _RULES:
        raise UserError(f"there is no threshold rule {name!r}; {did_you_mean(name, _RULES)}")
    return tuple(key for key in inspect.signature(_RULES[name]).parameters if key != "scores")


def threshold_report(threshold: float, scores: Any, labels: Any) -> dict[str, float]:
    """What the rule score >= threshold achieves: `fpr`, `tpr`, `precision`, `recall`, `f1`.

    FP / normal, TP / anomalous, TP / flagged (0 where nothing is flagged), TP / anomalous again, and 2 TP / (2 TP + FP + FN).
    A rate whose images are absent is NaN, without a warning.

    Args:
      threshold: in the units of the scores.
      scores: any shape.
      labels: the shape of `scores`; 0 normal, 1 anomalous.

    Raises:
      UserError: shapes differ, labels are not binary, NaN or infinite scores.
    """
    true, false, missed, rest = confusion(scores, labels, threshold)
    nan = float("nan")
    recall = true / (true + missed) if true + missed else nan
    return {
        "fpr": false / (false + rest) if false + rest else nan,
        "tpr": recall,
        "precision": true / max(true + false, 1) if true + missed else nan,
        "recall": recall,
        "f1": 2 * true / (2 * true + false + missed) if true + missed else nan,
    }


def _quantile(scores: np.ndarray, quantile: float = DEFAULTS["quantile"]) -> float:
    _check("quantile", quantile)
    return float(np.quantile(scores.astype(np.float64), quantile))


def _k_sigma(scores: np.ndarray, num_sigmas: float = DEFAULTS["num_sigmas"]) -> float:
    _check("num_sigmas", num_sigmas)
    scores = scores.astype(np.float64)
    return float(scores.mean() + num_sigmas * scores.std())


def _target_fpr(scores: np.ndarray, fpr: float = DEFAULTS["fpr"]) -> float:
    _check("fpr", fpr)
    # the small slack keeps 0.29 * 100 at 29
    allowed = int(np.floor(fpr * scores.size * (1 + 1e-12)))
    if allowed >= scores.size:
        return float(scores.min())
    # one step in float32 where the scores are float32, whatever array holds them: a comparison there must not undo it
    kind = np.float32 if np.array_equal(scores.astype(np.float32), scores) else np.float64
    return float(np.nextafter(kind(np.sort(scores)[scores.size - 1 - allowed]), kind(np.inf)))


def _extreme_value(scores: np.ndarray, fpr: float = DEFAULTS["fpr"], tail_fraction: float = DEFAULTS["tail_fraction"]) -> float:
    _check_tail(fpr, tail_fraction)
    scores = scores.astype(np.float64)
    start = np.quantile(scores, 1 - tail_fraction)
    over = scores[scores > start] - start
    _check_exceedances(len(over), scores.size, tail_fraction)
    scale = over.mean()
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # the search for the maximum likelihood tries shapes whose density is not defined
        warnings.simplefilter("ignore", RuntimeWarning)
        shape, _, width = scipy.stats.genpareto.fit(over / scale, floc=0)
    return float(start + scale * scipy.stats.genpareto.isf(fpr * scores.size / len(over), shape, scale=width))


def _a_contrario(scores: np.ndarray, false_alarms: float = DEFAULTS["false_alarms"]) -> float:
    del scores
    _check("false_alarms", false_alarms)
    return 0.0 - math.log10(false_alarms)


def _check(name: str, value: float) -> None:
    low, high = _RANGES[name]
    if name == "false_alarms" and value == 0:
        raise UserError("threshold option false_alarms must be above 0, got 0")
    # NaN and infinity fail too
    if not (low <= value <= high and math.isfinite(value)):
        allowed = f"from {low:g} to {high:g}" if math.isfinite(high) else f"a number of at least {low:g}"
        raise UserError(f"threshold option {name} must be {allowed}, got {value}")


def _check_tail(fpr: float, tail_fraction: float) -> None:
    if not 0 < tail_fraction < 1:
        raise UserError(f"threshold option tail_fraction must be between 0 and 1, got {tail_fraction}")
    if not 0 < fpr <= tail_fraction:
        raise UserError(f"threshold option fpr must be above 0 and at most tail_fraction, got {fpr}")


def _check_exceedances(above: int, number: int, tail_fraction: float) -> None:
    if above < _MIN_EXCEEDANCES:
        raise UserError(
            f"extreme_value fits a tail to at least {_MIN_EXCEEDANCES} scores above the {1 - tail_fraction:g} quantile, got "
            f"{above} of {number}; hold out more normal images, raise tail_fraction, or use 'quantile'"
        )


_RANGES = {
    "quantile": (0, 1),
    "num_sigmas": (0, math.inf),
    "fpr": (0, 1),
    "tail_fraction": (0, 1),
    "false_alarms": (0, math.inf),
}


_RULES = {
    "quantile": _quantile,
    "k_sigma": _k_sigma,
    "extreme_value": _extreme_value,
    "target_fpr": _target_fpr,
    "a_contrario": _a_contrario,
}
