"""AUROC, average precision, F1-max and curves against scikit-learn, paper cases and invariances."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from iadjax import metrics
from iadjax.errors import UserError

CASES = {
    "random": lambda rng: rng.normal(size=300),
    "heavy ties": lambda rng: rng.integers(0, 5, 300).astype(float),
    "all equal": lambda rng: np.full(300, 2.5),
    "far from [0, 1]": lambda rng: 20 + 20 * rng.random(300),
}


def sk_f1_max(labels, scores):
    precision, recall, thresholds = sk.precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    return f1.max(), thresholds[np.flatnonzero(f1 == f1.max())[-1]]


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-9), (np.float32, 1e-6)])
@pytest.mark.parametrize("case", CASES)
def test_equals_scikit_learn(case, dtype, tolerance):
    rng = np.random.default_rng(3)
    for _ in range(10):
        scores = CASES[case](rng).astype(dtype)
        labels = rng.random(300) < rng.uniform(0.05, 0.95)
        f1, threshold = metrics.f1_max(scores, labels, return_threshold=True)
        assert metrics.auroc(scores, labels) == pytest.approx(sk.roc_auc_score(labels, scores), abs=tolerance)
        expected = sk.average_precision_score(labels, scores)
        assert metrics.average_precision(scores, labels) == pytest.approx(expected, abs=tolerance)
        assert f1 == pytest.approx(sk_f1_max(labels, scores)[0], abs=tolerance)
        assert sk.f1_score(labels, scores >= dtype(threshold)) == pytest.approx(f1, abs=tolerance)


def test_curves_equal_scikit_learn():
    rng = np.random.default_rng(4)
    scores, labels = rng.integers(0, 40, 200) / 8, rng.random(200) < 0.3
    fpr, tpr, thresholds = sk.roc_curve(labels, scores, drop_intermediate=False)
    curve = metrics.roc_curve(scores, labels)
    np.testing.assert_allclose(curve.fpr, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.tpr, tpr, atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    precision, recall, thresholds = sk.precision_recall_curve(labels, scores)
    curve = metrics.pr_curve(scores, labels)
    np.testing.assert_allclose(curve.precision, precision[::-1], atol=1e-12)
    np.testing.assert_allclose(curve.recall, recall[::-1], atol=1e-12)
    np.testing.assert_array_equal(curve.thresholds[1:], thresholds[::-1])


def test_precision_recall_f1_equal_scikit_learn():
    rng = np.random.default_rng(5)
    scores, labels = rng.integers(0, 9, 100), rng.random(100) < 0.4
    for threshold in range(10):
        expected = sk.precision_recall_fscore_support(labels, scores >= threshold, average="binary", zero_division=0)[:3]
        assert metrics.precision_recall_f1(scores, labels, threshold) == pytest.approx(expected, abs=1e-12)


def test_case_on_paper():
    # normal 1, 2, 2; anomalous 2, 3. Pairs: 3 beats all three, 2 beats one and ties two: (3 + 1 + 2/2) / 6
    scores, labels = np.array([1.0, 2, 2, 2, 3]), np.array([0, 0, 0, 1, 1])
    assert metrics.auroc(scores, labels) == pytest.approx(5 / 6)
    # at 3: precision 1, recall 1/2; at 2: precision 2/4, recall 1
    assert metrics.average_precision(scores, labels) == pytest.approx(1 / 2 * 1 + 1 / 2 * 1 / 2)
    # F1: 2/3 at the threshold 3, 4/6 at 2; of equal ones the highest threshold
    assert metrics.f1_max(scores, labels, return_threshold=True) == (pytest.approx(2 / 3), 3.0)
    expected = {"image_auroc": 5 / 6, "image_ap": 0.75, "image_f1max": 2 / 3}
    assert metrics.image_metrics(scores, labels) == pytest.approx(expected)


def test_a_score_on_the_threshold_is_anomalous():
    assert metrics.precision_recall_f1([1.0, 2.0], [0, 1], 2.0) == (1, 1, 1)
    # the float64 just above a float32 score must not be rounded onto it
    above = float(np.nextafter(np.float64(np.float32(0.1)), 1))
    assert metrics.precision_recall_f1(np.float32([0.0, 0.1]), [0, 1], above).recall == 0


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-20, 20), st.booleans()), min_size=2, max_size=60), st.integers(0, 2**32 - 1))
def test_invariance_under_increasing_maps_and_permutations(pairs, seed):
    scores, labels = (np.array(each) for each in zip(*pairs, strict=True))
    if labels.all() or not labels.any():
        return
    order = np.random.default_rng(seed).permutation(len(scores))
    expected = metrics.image_metrics(scores, labels)
    for changed in (np.exp(scores / 7), np.arctan(scores), 1000 + 3.0 * scores):
        assert metrics.image_metrics(changed[order], labels[order]) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_absent_is_nan_with_one_warning(label):
    scores, labels = np.arange(4.0), np.full(4, label)
    rule = lambda scores, labels: metrics.precision_recall_f1(scores, labels, 1.0).f1  # noqa: E731
    for metric in (metrics.auroc, metrics.average_precision, metrics.f1_max, rule):
        with pytest.warns(RuntimeWarning, match="both classes") as caught:
            assert np.isnan(metric(scores, labels))
        assert len(caught) == 1
    with pytest.warns(RuntimeWarning, match="both classes") as caught:
        assert all(np.isnan(value) for value in metrics.image_metrics(scores, labels).values())
    assert len(caught) == 1
    with pytest.warns(RuntimeWarning, match="both classes"):
        curve = metrics.roc_curve(scores, labels)
    assert np.isnan(curve.fpr if label else curve.tpr).all()


def test_bad_input_is_one_sentence():
    with pytest.raises(UserError, match="2 NaN and 1 infinite of 5"):
        metrics.auroc([1, np.nan, np.inf, np.nan, 0], [0, 1, 0, 1, 0])
    with pytest.raises(UserError, match="one shape"):
        metrics.auroc([1.0, 2.0], [0, 1, 1])
    with pytest.raises(UserError, match="0 and 1"):
        metrics.auroc([1.0, 2.0, 3.0], [0, 1, 2])
    with pytest.raises(UserError, match="0 and 1"):
        metrics.auroc([1.0, 2.0], [0, -1])
    with pytest.raises(UserError, match="real numbers"):
        metrics.auroc(["a", "b"], [0, 1])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_jax_arrays_of_any_shape(dtype):
    scores = jnp.asarray(np.random.default_rng(0).integers(0, 20, (4, 5)), dtype)
    labels = jnp.asarray(np.arange(20).reshape(4, 5) % 3 == 0)
    expected = sk.roc_auc_score(np.asarray(labels).ravel(), np.asarray(scores, np.float64).ravel())
    assert metrics.auroc(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_many_negatives_are_sorted_in_parts():
    rng = np.random.default_rng(9)
    scores = np.round(rng.normal(size=1_200_000), 4)
    labels = rng.random(scores.size) < 0.001
    assert metrics.auroc(scores, labels) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-9)
    assert metrics.average_precision(scores, labels) == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-9)
