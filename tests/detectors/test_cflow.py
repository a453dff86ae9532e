"""CFLOW-AD: fibre batches, the rate, the likeliest position, sizes and refusals; tests/parity has the other codes' numbers."""

import jax
import numpy as np
import pytest

from iadjax.config import load_config
from iadjax.detectors.distribution.cflow import cflow
from iadjax.errors import UserError
from tests.direct import batch_of, phases, predict, spec_for
from tests.parity import harness


def built(levels, **options):
    backbone, frozen = harness.given(levels)
    sizes = {"coupling_blocks": 1, "condition_dimension": 4, "fiber_batch": 5, "epochs": 10, "meta_epochs": 5, "warmup": 2.0}
    detector = cflow(backbone, layers=backbone.layers, **{**sizes, **options})
    spec = spec_for(detector, frozen, 4, (8, 8, 3))
    return detector, frozen, jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec)


def features(*shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def updated(detector, frozen, state, phase=0, valid=(True, True)):
    batch = batch_of(detector, frozen, np.zeros((2, 8, 8, 3), np.float32), valid=np.array(valid))
    return jax.jit(phases(detector)[phase].update)(jax.random.key(0), state, frozen, batch)


def test_every_fibre_batch_is_a_step_and_the_rest_is_left_out():
    detector, frozen, state = built([features(2, 3, 2, 4), features(2, 1, 1, 4)])
    state, info = updated(detector, frozen, state)
    # 12 positions in parts of 5, and 2 positions in one part of 2
    assert [int(decoder.optimizer.count) for decoder in state.decoders] == [2, 1] and state.steps == 1
    # padded images come last: 6 positions fill one part
    state, _ = updated(detector, frozen, state, valid=(True, False))
    assert [int(decoder.optimizer.count) for decoder in state.decoders] == [4, 2]


def test_parts_without_a_real_position_change_nothing():
    detector, frozen, state = built([features(2, 3, 2, 4)])
    fitted, info = updated(detector, frozen, state, valid=(False, False))
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (fitted.decoders, state.decoders)), strict=True))
    assert info["loss"] == 0


def test_the_rate_rises_from_a_tenth_and_falls_by_a_cosine_at_each_meta_epoch():
    detector, frozen, state = built([features(2, 1, 1, 4)], learning_rate=1e-2, final_fraction=0.1)

    def cosine(m):
        return 1e-3 + 9e-3 * 0.5 * (1 + np.cos(np.pi * m / 5))

    # ten steps, two in each meta epoch
    expected = [1e-3 + m / 2 * (cosine(2) - 1e-3) for m in (0, 0.5, 1, 1.5)] + [cosine(m) for m in (2, 2, 3, 3, 4, 4)]
    found = []
    for _ in range(10):
        state, info = updated(detector, frozen, state)
        found.append(float(info["rate"]))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_likeliest_position_of_the_training_images_has_no_anomaly():
    levels = [features(2, 3, 2, 4)]
    detector, frozen, state = built(levels)
    state, _ = updated(detector, frozen, state, phase=1, valid=(True, False))
    maps = np.asarray(predict(detector, state, frozen, np.zeros((2, 3, 2, 3), np.float32)).map)
    # of one level and at the size of its grid: 1 - p / largest p
    assert maps[0].min() == pytest.approx(0, abs=1e-6) and maps.max() < 1
    # the second image was not there, and may be likelier
    other, _ = updated(detector, frozen, state, phase=1, valid=(False, True))
    assert other.peak[0] >= state.peak[0]


def test_the_authors_sizes_go_with_categories():
    sizes = {
        name: load_config(f"unsupervised/cflow.py:mvtec_ad,category={name}").data.resize for name in ("wood", "transistor")
    }
    assert sizes == {"wood": 512, "transistor": 128}
    assert load_config("unsupervised/cflow.py:mvtec_ad").data.resize == 256


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="condition_dimension must be a positive multiple of 4, got 6"):
        built([features(2, 1, 1, 4)], condition_dimension=6)
    with pytest.raises(UserError, match="final_fraction"):
        built([features(2, 1, 1, 4)], final_fraction=0.0)
