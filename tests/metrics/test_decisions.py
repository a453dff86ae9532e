"""SegF1 and ClassF1 against NumPy in float64 over the pooled pixels."""

import numpy as np
import pytest

from iadjax.errors import UserError
from iadjax.metrics import seg_and_class_f1


def truth(predicted, actual):
    """F1 from precision and recall in float64."""
    predicted, actual = (np.concatenate([np.ravel(each) for each in parts]).astype(np.float64) for parts in (predicted, actual))
    precision, recall = predicted @ actual / predicted.sum(), predicted @ actual / actual.sum()
    return 2 * precision * recall / (precision + recall)


def test_a_case_by_hand():
    maps = [np.array([[1.0, 0.6, 0.0]]), np.array([[0.5, 0.0, 0.0]]), np.array([[0.1, 0.2, 0.3]])]
    masks = [np.array([[1, 1, 1]]), np.zeros((1, 3)), np.array([[0, 0, 1]])]
    # pixels: TP 2, FP 1 (0.5 is at the threshold), FN 2; images: TP 1, FP 1, FN 1
    found = seg_and_class_f1(zip(maps, masks, ["regular", "shifted", "shifted"], strict=True), 0.5)
    assert found["seg_f1"] == pytest.approx(4 / 7) and found["class_f1"] == 0.5
    assert found["seg_f1_regular"] == pytest.approx(4 / 5) and found["class_f1_regular"] == 1.0
    assert found["seg_f1_shifted"] == 0.0 and found["class_f1_shifted"] == 0.0


@pytest.mark.parametrize("threshold", [0.3, 0.9, 0.99])
def test_random_maps_agree_with_float64(threshold):
    rng = np.random.default_rng(0)
    maps = rng.random((12, 20, 24), np.float32)
    masks = ((rng.random((12, 20, 24)) > 0.99) & (np.arange(12) % 2 == 0)[:, None, None]).astype(np.uint8) * 255
    maps += np.float32(0.2) * (masks > 0)
    parts = ["regular" if i < 7 else "shifted" for i in range(12)]
    found = seg_and_class_f1(zip(maps, masks, parts, strict=True), threshold)
    flagged, marked = maps.astype(np.float64) >= threshold, masks > 0
    for name, rows in (("", slice(None)), ("_regular", slice(7)), ("_shifted", slice(7, None))):
        assert found[f"seg_f1{name}"] == pytest.approx(truth(flagged[rows], marked[rows]), abs=1e-12)
        images = [each[rows].any(axis=(1, 2)) for each in (flagged, marked)]
        assert found[f"class_f1{name}"] == pytest.approx(truth(*images), abs=1e-12)


def test_a_threshold_between_two_float32_numbers_is_not_rounded():
    score = np.float32(0.1)
    above = float(score) + 1e-10
    assert np.float32(above) == score
    assert seg_and_class_f1([(np.array([[score]]), np.array([[1]]), "a")], above)["seg_f1"] == 0.0


def test_nothing_marked_and_nothing_flagged_is_undefined():
    found = seg_and_class_f1([(np.zeros((2, 2)), np.zeros((2, 2)), "a")], 0.5)
    assert np.isnan(found["seg_f1"]) and np.isnan(found["class_f1"])


@pytest.mark.parametrize(
    ("scores", "threshold", "sentence"),
    [
        (np.zeros((2, 3)), 0.5, r"a map is \(2, 3\), but its mask is \(2, 2\)"),
        (np.full((2, 2), np.nan), 0.5, "a map holds NaN"),
        (np.zeros((2, 2)), float("nan"), "must be a finite number"),
    ],
)
def test_bad_input(scores, threshold, sentence):
    with pytest.raises(UserError, match=sentence):
        seg_and_class_f1([(scores, np.zeros((2, 2)), "a")], threshold)
