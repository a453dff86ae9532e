"""sPRO and the LOCO splits against the definition, threshold by threshold."""

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from iadjax import metrics
from iadjax.errors import UserError
from iadjax.metrics import Defect


def by_definition(maps, defects, limit):
    """sPRO and FPR at every distinct threshold, and the trapezoid between them."""
    free = [np.ones(each.shape, bool) for each in maps]
    for mask, some in zip(free, defects, strict=True):
        for defect in some:
            mask &= ~defect.mask
    normal = np.concatenate([each[mask] for each, mask in zip(maps, free, strict=True)])
    points = [(0.0, 0.0)]
    for threshold in np.unique(np.concatenate([each.ravel() for each in maps]))[::-1]:
        terms = [
            min(np.sum((each >= threshold) & defect.mask) / defect.saturation, 1)
            for each, some in zip(maps, defects, strict=True)
            for defect in some
        ]
        points.append((np.mean(normal >= threshold), np.mean(terms)))
    x, y = np.array(points).T
    inside = x <= limit
    return np.trapezoid(np.append(y[inside], _at(x, y, limit)), np.append(x[inside], limit)) / limit


def _at(x, y, limit):
    after = np.argmax(x > limit) if (x > limit).any() else None
    if after is None:
        return y[-1]
    share = (limit - x[after - 1]) / (x[after] - x[after - 1])
    return y[after - 1] + share * (y[after] - y[after - 1])


def random_case(rng):
    maps = [rng.integers(0, 25, rng.integers(4, 9, 2)) / 4 for _ in range(4)]
    defects = [[]]
    for each in maps[1:]:
        some = []
        for _ in range(rng.integers(1, 3)):
            mask = rng.random(each.shape) < 0.2
            mask[0, 0] = True
            some.append(Defect(mask, rng.uniform(0.5, mask.sum())))
        defects.append(some)
    return maps, defects


def test_equals_the_definition_on_random_cases():
    rng = np.random.default_rng(0)
    for _ in range(60):
        maps, defects = random_case(rng)
        for limit in (0.05, 0.3, 1.0):
            assert metrics.au_spro(maps, defects, limit) == pytest.approx(by_definition(maps, defects, limit), abs=1e-9)
        assert metrics.au_spro(maps, defects, (0.05, 0.3))[1] == metrics.au_spro(maps, defects, 0.3)


def test_one_threshold_on_paper():
    mask = np.array([[True, True, True, False]])
    maps = [np.array([[3.0, 2, 1, 0]])]
    # two of the three pixels are found; the defect saturates at four, two and one
    for saturation, expected in ((4, 1 / 2), (2, 1), (1, 1)):
        assert metrics.spro(maps, [[Defect(mask, saturation)]], 2.0) == pytest.approx(expected)


def test_saturated_at_its_area_equals_aupro():
    rng = np.random.default_rng(1)
    masks = np.zeros((3, 8, 8), bool)
    masks[0, 1:4, 2:5] = masks[1, 5:, :3] = True
    maps = rng.random(masks.shape)
    defects = [[Defect(mask, mask.sum())] if mask.any() else [] for mask in masks]
    assert metrics.au_spro(list(maps), defects, 0.3) == pytest.approx(metrics.aupro(maps, masks, 0.3), abs=1e-12)


def test_config_and_masks(tmp_path):
    entries = [
        {"defect_name": "a", "pixel_value": 255, "saturation_threshold": 0.5, "relative_saturation": True},
        {"defect_name": "b", "pixel_value": 7, "saturation_threshold": 3, "relative_saturation": False},
    ]
    file = tmp_path / "defects_config.json"
    file.write_text(json.dumps(entries))
    config = metrics.read_defects_config(file)
    masks = [np.array([[255, 255, 0, 0]]), np.array([[7, 7, 7, 7]]), np.array([[0, 0, 7, 7]])]
    defects = metrics.loco_defects(masks, config)
    # half of 2; the lesser of 3 and 4; the lesser of 3 and 2
    assert [defect.saturation for defect in defects] == [1, 3, 2]
    assert [int(defect.mask.sum()) for defect in defects] == [2, 4, 2]
    for bad in (np.zeros((1, 2), int), np.array([[7, 255]]), np.array([[9, 0]])):
        with pytest.raises(UserError, match="pixel values"):
            metrics.loco_defects([bad], config)
    file.write_text('[{"pixel_value": 1}]')
    for path in (file, tmp_path / "absent.json"):
        with pytest.raises(UserError, match="cannot read"):
            metrics.read_defects_config(path)


def test_splits():
    rng = np.random.default_rng(2)
    maps, defects = random_case(rng)
    kinds = ["good", "structural_anomalies", "logical", "structural"]
    found = metrics.loco_au_spro(maps, defects, kinds, 0.3)
    chosen = [0, 1, 3]
    assert found["structural"] == metrics.au_spro([maps[i] for i in chosen], [defects[i] for i in chosen], 0.3)
    assert found["logical"] == metrics.au_spro([maps[0], maps[2]], [defects[0], defects[2]], 0.3)
    assert found["mean"] == pytest.approx((found["structural"] + found["logical"]) / 2)
    scores, kinds = rng.random(30), rng.permutation(["good", "structural", "logical"] * 10)
    found = metrics.loco_image_auroc(scores, list(kinds))
    for kind in ("structural", "logical"):
        some = (kinds == "good") | (kinds == kind)
        assert found[kind] == pytest.approx(roc_auc_score(kinds[some] == kind, scores[some]), abs=1e-12)
    with pytest.raises(UserError, match="kinds must be"):
        metrics.loco_image_auroc([1.0, 2.0], ["good", "broken"])


def test_bad_input():
    maps, mask = [np.zeros((2, 2))], np.ones((2, 2), bool)
    with pytest.warns(RuntimeWarning, match="needs a defect"):
        assert np.isnan(metrics.spro(maps, [[]], 0.0))
    with pytest.warns(RuntimeWarning, match="needs a defect"):
        assert np.isnan(metrics.au_spro(maps, [[]], (0.1, 0.2))).all()
    with pytest.raises(UserError, match="saturation area 0"):
        metrics.au_spro(maps, [[Defect(mask, 0)]])
    with pytest.raises(UserError, match="resize"):
        metrics.au_spro(maps, [[Defect(mask[:1], 1)]])
    with pytest.raises(UserError, match="1 maps but defects of 2"):
        metrics.au_spro(maps, [[], []])
