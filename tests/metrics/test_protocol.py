"""What evaluations share: masks resized, maps past a budget, the mean over categories."""

import numpy as np
import pytest

from iadjax import metrics
from iadjax.metrics.protocol import loco_metrics_within, mean_over_categories, pixel_metrics_within, resize_mask


def example():
    rng = np.random.default_rng(0)
    masks = np.zeros((10, 40, 30), bool)
    masks[3:, 5:20, 6:18] = True
    return (rng.normal(size=masks.shape) + masks).astype(np.float32), masks


@pytest.mark.parametrize("pilot", [False, True])
def test_past_the_budget_maps_are_streamed_and_read_once(pilot):
    maps, masks = example()
    exact = metrics.pixel_metrics(maps, masks)
    read = []

    def pairs():
        for i, pair in enumerate(zip(maps, masks, strict=True)):
            read.append(i)
            yield pair

    within = pixel_metrics_within(maps.nbytes, pairs())
    assert within.pop("pixel_exact") is True and within == pytest.approx(exact, abs=1e-12)
    # three maps at a time
    past = pixel_metrics_within(3 * maps[0].nbytes - 1, pairs(), maps if pilot else None)
    assert past["pixel_exact"] is False and read == 2 * [*range(10)]
    for key, value in exact.items():
        assert abs(past[key] - value) <= past["pixel_error_bounds"][key] + 1e-12 < 1e-3


def test_maps_of_loco_are_streamed_past_the_budget():
    maps, masks = example()
    defects = [[metrics.Defect(mask, 40.0 + i)] if mask.any() else [] for i, mask in enumerate(masks)]
    kinds = ["good"] * 3 + ["structural_anomalies", "logical_anomalies"] * 3 + ["logical_anomalies"]
    exact = metrics.loco_au_spro(maps, defects, kinds)
    expected = {"au_spro": exact["mean"], "au_spro_structural": exact["structural"], "au_spro_logical": exact["logical"]}
    images = list(zip(maps, defects, kinds, strict=True))
    within = loco_metrics_within(maps.nbytes, iter(images))
    assert within.pop("au_spro_exact") is True and within == expected
    past = loco_metrics_within(3 * maps[0].nbytes - 1, iter(images))
    assert past["au_spro_exact"] is False and past["au_spro_error_bounds"].keys() == expected.keys()
    for key, value in expected.items():
        assert abs(past[key] - value) <= past["au_spro_error_bounds"][key] + 1e-12 < 1e-3


def test_masks_by_nearest_neighbour():
    mask = np.array([[0, 255], [255, 0]], np.uint8)
    np.testing.assert_array_equal(resize_mask(mask, (4, 4)), np.kron(mask != 0, np.ones((2, 2), bool)))
    np.testing.assert_array_equal(resize_mask(mask, (2, 2)), mask != 0)
    np.testing.assert_array_equal(resize_mask(np.eye(4, 6, dtype=bool), (4, 3)), np.eye(4, 6, dtype=bool)[:, 1::2])


def test_mean_over_categories():
    nan = float("nan")
    rows = [
        {"a": 0.5, "b": nan, "c": nan, "images": 3, "resolution": "original", "exact": True, "in": {"x": 1.0}, "only": 1.0},
        {"a": 1.0, "b": 0.25, "c": nan, "images": 4, "resolution": "original", "exact": False, "in": {"x": 2.0}},
    ]
    mean = mean_over_categories(rows)
    assert np.isnan(mean.pop("c"))
    expected = {"a": 0.75, "b": 0.25, "images": 7, "resolution": "original", "exact": False, "in": {"x": 1.5}}
    assert mean == expected
