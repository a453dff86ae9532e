"""Thresholds from normal scores, and what they are said to achieve."""

import numpy as np
import pytest

from iadjax import metrics
from iadjax.errors import UserError

RULES = ("quantile", "k_sigma", "extreme_value", "target_fpr")


def test_quantile_and_k_sigma_on_paper():
    assert metrics.fit_threshold("quantile", np.arange(101.0)) == pytest.approx(99)
    assert metrics.fit_threshold("quantile", np.arange(101.0), quantile=0.5) == pytest.approx(50)
    # mean 2, standard deviation 1
    assert metrics.fit_threshold("k_sigma", [1.0, 3.0], num_sigmas=2) == pytest.approx(4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("fpr", [0, 0.01, 0.05, 0.29, 1])
def test_target_fpr_is_the_lowest_threshold_that_keeps_it(dtype, fpr):
    rng = np.random.default_rng(0)
    for scores in (rng.normal(size=100).astype(dtype), rng.integers(0, 6, 100).astype(dtype)):
        threshold = metrics.fit_threshold("target_fpr", scores, fpr=fpr)
        assert np.mean(scores >= dtype(threshold)) <= fpr
        # the next lower score as a threshold would flag too many
        lower = scores[scores < threshold]
        assert not len(lower) or np.mean(scores >= lower.max()) > fpr


def test_target_fpr_survives_a_comparison_in_float32():
    scores = np.random.default_rng(1).random(50, np.float32)
    threshold = metrics.fit_threshold("target_fpr", scores.astype(np.float64), fpr=0)
    assert not np.any(scores >= np.float32(threshold))


@pytest.mark.parametrize("shape, quantile", [(0.0, lambda p: -np.log(p)), (0.25, lambda p: (p**-0.25 - 1) / 0.25)])
def test_extreme_value_reaches_beyond_the_sample(shape, quantile):
    # exponential and Pareto scores: their tails are generalised Pareto, so that the true quantile is known
    scores = quantile(1 - np.random.default_rng(7).random(5000))
    for fpr in (1e-2, 1e-3, 1e-5):
        found = metrics.fit_threshold("extreme_value", scores, fpr=fpr)
        assert found == pytest.approx(quantile(fpr), rel=0.35)
    assert found > scores.max()


def test_extreme_value_does_not_depend_on_units():
    scores = np.random.default_rng(2).gamma(2, size=500)
    found = metrics.fit_threshold("extreme_value", scores)
    assert metrics.fit_threshold("extreme_value", 1e4 * scores - 7) == pytest.approx(1e4 * found - 7, rel=1e-3)


def test_report_on_paper():
    report = metrics.threshold_report(2.0, [1.0, 2.0, 3.0, 1.0, 2.0], [0, 0, 1, 1, 1])
    assert report == pytest.approx({"fpr": 1 / 2, "tpr": 2 / 3, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3})
    none = metrics.threshold_report(9.0, [1.0, 2.0], [0, 1])
    assert none == {"fpr": 0, "tpr": 0, "precision": 0, "recall": 0, "f1": 0}
    normal = metrics.threshold_report(2.0, [1.0, 2.0], [0, 0])
    assert normal["fpr"] == 0.5 and np.isnan([normal[key] for key in ("tpr", "precision", "recall", "f1")]).all()
    assert np.isnan(metrics.threshold_report(2.0, [1.0], [1])["fpr"])


@pytest.mark.parametrize("name", RULES)
def test_bad_input_is_one_sentence(name):
    with pytest.raises(UserError, match="has no option 'quantil'"):
        metrics.fit_threshold(name, np.arange(9.0), quantil=1)
    with pytest.raises(UserError, match="at least one normal image"):
        metrics.fit_threshold(name, [])
    with pytest.raises(UserError, match="1 NaN"):
        metrics.fit_threshold(name, [1.0, np.nan])


def test_unknown_rules_values_and_short_tails():
    with pytest.raises(UserError, match="did you mean 'quantile'"):
        metrics.fit_threshold("quantil", [1.0])
    with pytest.raises(UserError, match="option quantile must be"):
        metrics.fit_threshold("quantile", [1.0], quantile=99)
    with pytest.raises(UserError, match="option fpr must be"):
        metrics.fit_threshold("target_fpr", [1.0], fpr=-1)
    with pytest.raises(UserError, match="option fpr must be"):
        metrics.fit_threshold("extreme_value", np.arange(500.0), fpr=0.5)
    with pytest.raises(UserError, match="option tail_fraction must be"):
        metrics.fit_threshold("extreme_value", np.arange(500.0), tail_fraction=2)
    with pytest.raises(UserError, match="hold out more"):
        metrics.fit_threshold("extreme_value", np.arange(20.0))
