"""A bank that grows over several fits."""

import shutil

import numpy as np
import pytest

import iadjax
from iadjax.config import base_config
from iadjax.detectors.families.bank import Growing, merge_growing
from tests.detectors.families.test_memory_bank import BUDGET, DEPTH, filled, images, radius


def sites(tree, parts):
    """Copies of a tree that hold parts of its training images."""
    names = sorted(file.name for file in (tree / "train/good").iterdir())
    for number, part in enumerate(parts):
        root = tree.parent / f"site{number}"
        shutil.copytree(tree, root)
        for name in set(names) - set(names[part]):
            (root / "train/good" / name).unlink()
        yield str(root)


def rows_of(memory):
    """The chosen patches in an order of their own, with their weights."""
    number = int(memory.rows)
    rows = np.column_stack([np.asarray(memory.features)[:number], np.asarray(memory.weights)[:number]])
    return rows[np.lexsort(rows.T[::-1])]


@pytest.mark.parametrize("name", ["patchcore", "softpatch"])
def test_two_fits_choose_what_one_fit_on_all_images_chooses(name, tree, tmp_path):
    config = config_of(name, tree)
    whole = iadjax.fit(config, tmp_path / "whole")
    first, second = sites(tree, (slice(0, 3), slice(3, None)))
    config.data.root = first
    before = iadjax.fit(config, tmp_path / "first")
    config.data.root = second
    # from the directory, as on another day
    after = iadjax.fit(config, tmp_path / "second", start=iadjax.load(tmp_path / "first"))
    assert isinstance(after.state, Growing) and int(after.state.bank.count) == int(whole.state.bank.count)
    assert int(before.state.memory.rows) < int(after.state.memory.rows) == int(whole.state.memory.rows)
    np.testing.assert_allclose(rows_of(after.state.memory), rows_of(whole.state.memory), rtol=1e-5, atol=1e-6)
    test = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    for a, b in zip(iadjax.load(tmp_path / "second").predict(test), whole.predict(test), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)


def config_of(name, tree):
    config = base_config(name, "folder")
    config.data.update({"root": str(tree), "resize": 64, "batch_size": 2, "workers": 0})
    config.detector.update({"layers": ("layer2",), "embedding": "pool", "coreset_ratio": 0.2, "incremental": True})
    if name == "softpatch":
        config.detector.lof_neighbors = 2
    config.threshold.holdout = 0.0
    return config


def test_without_a_budget_three_fits_pick_what_one_picks():
    features = images(30)
    whole, _ = filled(features, 0, incremental=True)
    state = None
    for part in (features[:5], features[5:18], features[18:]):
        state, _ = filled(part, 0, batch_size=3, incremental=True, start=state)
    assert int(state.bank.rows) == 30 * 64
    # the same picks in the same order, the images having come in one order
    np.testing.assert_array_equal(state.memory.features[:200], whole.memory.features[:200])
    # and in another order the same set
    other, _ = filled(features[::-1], 0, incremental=True)
    np.testing.assert_allclose(rows_of(other.memory), rows_of(whole.memory), atol=1e-6)


@pytest.mark.parametrize("parts", [2, 6])
def test_with_a_budget_the_covering_radius_stays_near_that_of_one_fit(parts):
    features = images(60)
    whole, _ = filled(features, 0, incremental=True)
    state = None
    for part in np.split(features, parts):
        state, rows = filled(part, BUDGET, incremental=True, start=state)
        # the rows that are kept stay within the budget over all fits
        assert max(rows) <= 1000
    assert int(state.bank.count) == 60
    ratio = radius(features, state.memory) / radius(features, whole.memory)
    print("covering radius of", parts, "fits within a budget:", ratio)
    # the bound of docs/scaling.md is far above it: 1 + 2 compressions x the radius of half a buffer
    assert ratio < 1.15


def test_sites_merge_their_rows_as_well():
    features = images(8)
    sites = [filled(part, 0, incremental=True)[0] for part in np.split(features, 2)]
    merged = merge_growing(sites, np.array([0.5, 0.5]))
    assert isinstance(merged, Growing) and int(merged.bank.rows) == 8 * 64 and int(merged.bank.count) == 8
    found = np.asarray(merged.bank.features)[: 8 * 64].reshape(-1, DEPTH)
    np.testing.assert_array_equal(found, features.reshape(-1, DEPTH))
    assert int(merged.memory.rows) == 2 * 200
