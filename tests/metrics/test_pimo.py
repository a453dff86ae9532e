"""PIMO and AUPIMO against the definition on a dense grid of the shared false positive rate."""

import numpy as np
import pytest

from iadjax import metrics
from iadjax.errors import UserError


def curve_by_definition(image, mask, normal):
    """(shared FPR, TPR) at every distinct threshold, descending, in plain loops."""
    values = np.unique(np.concatenate([image[mask], *[each.ravel() for each in normal]]))[::-1]
    fpr = [np.mean([np.mean(each >= value) for each in normal]) for value in values]
    return np.append(0, fpr), np.append(0, [np.mean(image[mask] >= value) for value in values])


@pytest.mark.parametrize("same_size", [True, False])
def test_equals_the_definition(same_size):
    rng = np.random.default_rng(0)
    for _ in range(15):
        shapes = [(6, 7)] * 4 if same_size else [(6, 7), (4, 4), (5, 8), (3, 9)]
        maps = [rng.integers(0, 300, shape) / 4 for shape in shapes]
        masks = [np.zeros(shapes[0], bool), np.zeros(shapes[1], bool), rng.random(shapes[2]) < 0.3, rng.random(shapes[3]) < 0.3]
        masks[2][0, 0] = masks[3][0, 0] = True
        curves = metrics.pimo(maps, masks)
        areas = metrics.aupimo(maps, masks, fpr_bounds=(0.05, 0.6))
        assert [curve.image for curve in curves] == [2, 3] and np.isnan(areas[:2]).all()
        for curve in curves:
            fpr, tpr = curve_by_definition(maps[curve.image], masks[curve.image], maps[:2])
            known = set(zip(np.round(curve.fpr, 9), np.round(curve.tpr, 9), strict=True))
            truth = set(zip(np.round(fpr, 9), np.round(tpr, 9), strict=True))
            # every vertex of ours but the corners between two thresholds lies on the curve, and none with a rise is missing
            rises = {point for point, before in zip(sorted(truth)[1:], sorted(truth), strict=False) if point[1] > before[1]}
            assert rises <= known
            grid = np.exp(np.linspace(np.log(0.05), np.log(0.6), 200_001))
            dense = np.interp(grid, fpr, tpr)
            expected = np.trapezoid(dense, np.log(grid)) / np.log(0.6 / 0.05)
            assert areas[curve.image] == pytest.approx(expected, abs=2e-4)


def with_sampled_thresholds(maps, masks, bounds, count):
    """AUPIMO by thresholds at evenly spaced scores between the two whose shared FPR are the bounds, straight in log FPR.

    It differs from the exact form by at most the rectangles of rise and logarithm between two neighbouring thresholds.
    """
    normal = [each.ravel() for each, mask in zip(maps, masks, strict=True) if not mask.any()]

    def shared(threshold):
        return np.mean([np.mean(each >= threshold) for each in normal])

    every = np.unique(np.concatenate(normal))
    rates = np.array([shared(value) for value in every[-4000:]])
    low = every[-4000:][np.argmin(np.abs(rates - bounds[1]))]
    high = every[-4000:][np.argmin(np.abs(rates - bounds[0]))]
    thresholds = np.linspace(low, high, count)
    x = np.log([shared(threshold) for threshold in thresholds])[::-1]
    found, tolerance = [], []
    for each, mask in zip(maps, masks, strict=True):
        if mask.any():
            y = np.array([np.mean(each[mask] >= threshold) for threshold in thresholds])[::-1]
            found.append(np.trapezoid(y, x) / (x[-1] - x[0]))
            # between two thresholds the curve lies in the rectangle of both
            tolerance.append(np.sum(np.diff(x) * np.diff(y)) / (x[-1] - x[0]))
    return np.array(found), np.array(tolerance), np.exp([x[0], x[-1]])


def test_agrees_with_sampled_thresholds_within_the_sampling():
    rng = np.random.default_rng(3)
    masks = np.zeros((12, 300, 300), bool)
    masks[6:, 50:90, 60:110] = True
    maps = rng.normal(size=masks.shape)
    # from hardly found to found by most pixels
    maps[6:] += masks[6:] * np.linspace(1, 6, 6)[:, None, None]
    sampled, tolerance, reached = with_sampled_thresholds(maps, masks, (1e-5, 1e-4), 400)
    # the sampled thresholds reach the bounds but for a normal pixel
    exact = metrics.aupimo(maps, masks, fpr_bounds=tuple(reached))[6:]
    assert np.all(np.abs(sampled - exact) <= tolerance + 1e-9)
    assert tolerance.max() < 0.02 and np.ptp(exact) > 0.5


def test_on_paper():
    # normal pixels 1..100; a defect of two pixels, one above all of them, one between 90 and 91: found from FPR .1 on
    maps = [np.arange(1.0, 101).reshape(10, 10), np.full((10, 10), 0.5)]
    masks = [np.zeros((10, 10), bool), np.zeros((10, 10), bool)]
    masks[1][0, :2] = True
    maps[1][0, :2] = 200, 90.5
    with pytest.warns(RuntimeWarning, match="do not resolve"):
        # the first normal pixel is passed at FPR .01
        assert metrics.aupimo(maps, masks, fpr_bounds=(1e-3, 1e-2))[1] == pytest.approx(1 / 2)
    assert metrics.aupimo(maps, masks, fpr_bounds=(0.1, 1.0))[1] == pytest.approx(1)
    # half of the defect to .1, all of it to 1: equal shares of the logarithm
    assert metrics.aupimo(maps, masks, fpr_bounds=(0.01, 1.0))[1] == pytest.approx(3 / 4)


def test_default_bounds_with_many_pixels():
    rng = np.random.default_rng(1)
    normal = rng.random((4, 200, 200))
    defect = np.zeros((1, 200, 200))
    masks = np.zeros((5, 200, 200), bool)
    masks[4, :10, :10] = True
    # a defect that beats all normal pixels
    defect[masks[4:]] = 2
    assert metrics.aupimo(np.concatenate([normal, defect]), masks)[4] == pytest.approx(1)
    # and one below the share 1e-4 of them
    defect[masks[4:]] = 0.5
    assert metrics.aupimo(np.concatenate([normal, defect]), masks)[4] == 0


def test_bad_input():
    maps = np.zeros((2, 3, 3))
    with pytest.raises(UserError, match="normal images"):
        metrics.pimo(maps, np.ones((2, 3, 3), bool))
    with pytest.raises(UserError, match="fpr_bounds"):
        metrics.aupimo(maps, np.zeros((2, 3, 3)), fpr_bounds=(1e-4, 1e-5))
    with pytest.warns(RuntimeWarning, match="anomalous image") as caught:
        assert np.isnan(metrics.aupimo(maps, np.zeros((2, 3, 3)), fpr_bounds=(0.1, 0.2))).all()
    assert len(caught) == 1
