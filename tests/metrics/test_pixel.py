"""AU-PRO and the other pixel metrics against their definitions in plain float64 loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from iadjax import metrics
from iadjax.errors import UserError
from iadjax.metrics.overlap import ramp_area


def components(mask):
    """8-connected components by flood fill."""
    left = {tuple(each) for each in np.argwhere(mask)}
    found = []
    while left:
        edge = [left.pop()]
        part = list(edge)
        while edge:
            row, column = edge.pop()
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            edge += near
            part += near
        found.append(tuple(np.array(part).T))
    return found


def pro_by_definition(maps, masks, limit):
    """Loops over every distinct threshold, every image and every component."""
    pieces = [(each.astype(np.float64), part) for each, mask in zip(maps, masks, strict=True) for part in components(mask)]
    free = np.concatenate([each[~mask.astype(bool)].astype(np.float64) for each, mask in zip(maps, masks, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in sorted({float(value) for each in maps for value in each.ravel()}, reverse=True):
        pro = np.mean([np.mean(each[part] >= threshold) for each, part in pieces])
        points.append((np.mean(free >= threshold), pro))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
        elif x0 < limit:
            end = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            area += (limit - x0) * (y0 + end) / 2
    return area / limit, points


def random_case(rng):
    levels = rng.choice([2, 4, 30, 10**6])
    maps, masks = [], []
    for _ in range(rng.integers(1, 5)):
        shape = rng.integers(1, 9, 2)
        maps.append(rng.integers(0, levels, shape) / levels)
        masks.append((rng.random(shape) < rng.choice([0, 0.1, 0.5])).astype(np.uint8))
    masks[0].flat[0], masks[0].flat[-1] = 1, 0 if masks[0].size > 1 else 1
    return maps, masks


def test_aupro_equals_the_definition_on_240_random_cases():
    rng = np.random.default_rng(11)
    done = 0
    while done < 240:
        maps, masks = random_case(rng)
        if all(mask.all() for mask in masks):
            continue
        done += 1
        limits = (0.3, 0.05, 0.01, 1.0)
        found = metrics.aupro(maps, masks, fpr_limit=limits)
        for limit, value in zip(limits, found, strict=True):
            expected, points = pro_by_definition(maps, masks, limit)
            assert value == pytest.approx(expected, abs=1e-9)
        curve = metrics.pro_curve(maps, masks)
        np.testing.assert_allclose(np.stack([curve.fpr, curve.pro], axis=1), points, atol=1e-12)


def test_two_by_two_on_paper():
    # one defect pixel 3; free pixels 4, 2, 1: PRO is 0 to FPR 1/3, then 1
    maps, masks = np.array([[[4.0, 3], [2, 1]]]), np.array([[[0, 1], [0, 0]]])
    assert metrics.aupro(maps, masks, fpr_limit=1.0) == pytest.approx(2 / 3)
    assert metrics.aupro(maps, masks, fpr_limit=0.5) == pytest.approx((1 / 2 - 1 / 3) / 0.5)
    assert metrics.aupro(maps, masks) == 0
    # the defect pixel tied with one free pixel, above the others: a slope from (0, 0) to (1/3, 1)
    maps = np.array([[[4.0, 4], [2, 1]]])
    assert metrics.aupro(maps, masks, fpr_limit=1 / 3) == pytest.approx(1 / 2)
    assert metrics.aupro(maps, masks, fpr_limit=1 / 6) == pytest.approx(1 / 4)
    assert metrics.iou_max(maps, masks, return_threshold=True) == (1 / 2, 4.0)
    # at the threshold 2: TP 1, FP 2, FN 0
    assert metrics.dice(maps, masks, 2.0) == pytest.approx(2 / 4)


def test_diagonal_neighbours_are_one_component_and_components_weigh_alike():
    # components: two diagonal pixels, found by half; one pixel, found
    maps = np.array([[[9.0, 0, 0, 9], [0, 1, 0, 0]]])
    masks = np.array([[[1, 0, 0, 1], [0, 1, 0, 0]]])
    # at 9: PRO (1/2 + 1) / 2 at FPR 0; at 1: PRO 1 at FPR 0; then FPR 1
    curve = metrics.pro_curve(maps, masks)
    np.testing.assert_allclose(curve.pro, [0, 3 / 4, 1, 1])
    np.testing.assert_allclose(curve.fpr, [0, 0, 0, 1])


def test_pixel_metrics_equal_scikit_learn_and_aupro():
    rng = np.random.default_rng(2)
    masks = rng.random((5, 12, 12)) < 0.15
    maps = (rng.integers(0, 50, masks.shape) + 10 * masks).astype(np.float32)
    found = metrics.pixel_metrics(maps, masks.astype(np.uint8) * 255)
    assert found["pixel_auroc"] == pytest.approx(sk.roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9)
    assert found["pixel_ap"] == pytest.approx(sk.average_precision_score(masks.ravel(), maps.ravel()), abs=1e-9)
    assert found["pixel_f1max"] == metrics.f1_max(maps, masks)
    assert (found["aupro"], found["aupro_05"], found["aupro_01"]) == metrics.aupro(maps, masks, (0.3, 0.05, 0.01))
    best = max(sk.jaccard_score(masks.ravel(), maps.ravel() >= each) for each in np.unique(maps))
    assert metrics.iou_max(maps, masks) == pytest.approx(best, abs=1e-12)
    assert metrics.dice(maps, masks, 20) == pytest.approx(sk.f1_score(masks.ravel(), maps.ravel() >= 20), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_invariance_under_increasing_maps_permutations_and_stacking(seed):
    rng = np.random.default_rng(seed)
    masks = rng.random((4, 6, 7)) < 0.3
    masks[0, 0, 0], masks[0, 0, 1] = True, False
    maps = rng.integers(-9, 9, masks.shape).astype(np.float64)
    expected = metrics.pixel_metrics(maps, masks)
    order = rng.permutation(4)
    assert metrics.pixel_metrics(np.exp(maps)[order], masks[order]) == pytest.approx(expected, abs=1e-12)
    as_lists = metrics.pixel_metrics([*maps[order].astype(np.float32)], [*masks[order]])
    assert as_lists == pytest.approx(expected, abs=1e-12)


def test_nothing_to_measure_is_nan_with_one_warning():
    maps, empty, full = np.ones((1, 2, 2)), np.zeros((1, 2, 2), int), np.ones((1, 2, 2), int)
    for masks in (empty, full):
        for metric in (metrics.aupro, metrics.iou_max):
            with pytest.warns(RuntimeWarning, match="needs a defect") as caught:
                assert np.isnan(metric(maps, masks))
            assert len(caught) == 1
        with pytest.warns(RuntimeWarning, match="need a defect") as caught:
            assert all(np.isnan(value) for value in metrics.pixel_metrics(maps, masks).values())
        assert len(caught) == 1
        with pytest.warns(RuntimeWarning, match="needs a defect"):
            curve = metrics.pro_curve(maps, masks)
        assert np.isnan(curve.fpr[1:] if masks is full else curve.pro[1:]).all()
    with pytest.warns(RuntimeWarning):
        assert np.isnan(metrics.aupro([], [], (0.3, 0.1))).all()
    with pytest.warns(RuntimeWarning, match="Dice"):
        assert np.isnan(metrics.dice(maps, empty, 2.0))


def test_bad_input_is_one_sentence():
    maps, masks = np.zeros((2, 3, 3)), np.zeros((2, 3, 3), bool)
    maps[1, 0, :2] = np.nan, np.inf
    with pytest.raises(UserError, match="1 NaN and 1 infinite of 18"):
        metrics.aupro(maps, masks)
    with pytest.raises(UserError, match=r"map 0 is \(3, 3\) but its mask is \(2, 3\)"):
        metrics.aupro(np.zeros((2, 3, 3)), np.zeros((2, 2, 3)))
    with pytest.raises(UserError, match="2 maps but 1 masks"):
        metrics.aupro([np.zeros((2, 2))] * 2, [np.zeros((2, 2))])
    with pytest.raises(UserError, match="lists of arrays"):
        metrics.aupro(np.zeros((3, 3)), np.zeros((3, 3)))
    with pytest.raises(UserError, match=r"\[H, W\]"):
        metrics.aupro([np.zeros(3)], [np.zeros(3)])
    with pytest.raises(UserError, match="fpr_limit"):
        metrics.aupro(np.zeros((1, 2, 2)), masks[:1, :2, :2], fpr_limit=30)
    with pytest.raises(UserError, match="masks must be bool"):
        metrics.aupro(np.zeros((1, 1, 3)), np.array([[[0, 120, 255]]], np.uint8))


def test_area_of_a_ramp_to_a_limit():
    before, at = np.array([0.5, 0.25, 0.5, 0.0]), np.array([0.5, 0.75, 1.0, 0.0])
    # a step at the limit has no width; half-way up a ramp counts the triangle
    np.testing.assert_allclose(ramp_area(before, at, 0.5) * 0.5, [0, 0.25 * 0.5 / 2, 0, 0.5])
    np.testing.assert_allclose(ramp_area(before, at, 1.0), [0.5, 0.5, 0.25, 1.0])
