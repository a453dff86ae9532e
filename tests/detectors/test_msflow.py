"""MSFlow: the rate, scores of even images, and refusals; tests/parity has the authors' numbers."""

import jax
import numpy as np
import pytest

from iadjax.config import load_config
from iadjax.detectors.distribution.msflow import msflow
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.parity import harness


def built(levels, **options):
    backbone, frozen = harness.given(levels)
    sizes = {"blocks": (1,) * len(levels), "condition_dimension": 4, "epochs": 10}
    return msflow(backbone, layers=backbone.layers, **{**sizes, **options}), frozen


def test_the_rate_rises_between_epochs_and_falls_twice():
    levels = [np.random.default_rng(0).standard_normal((2, 4, 4, 2)).astype(np.float32)]
    detector, frozen = built(levels, warmup=0.2, decay_at=(0.5, 0.8), decay=0.5, learning_rate=1e-2, clip_norm=0.0)
    spec = spec_for(detector, frozen, 4, (8, 8, 3), steps_per_epoch=2)
    state = detector.init(jax.random.key(0), frozen, spec)
    update = jax.jit(detector.phases(spec)[0].update)
    batch = batch_of(detector, frozen, np.zeros((2, 8, 8, 3), np.float32))
    moved = []
    for _ in range(18):
        new, _ = update(jax.random.key(0), state._replace(variables=state.variables), frozen, batch)
        # Adam's first steps are as long as the rate where a gradient keeps its sign
        pair = (tree.variables["params"]["parallel_0_0"]["global_offset"] for tree in (new, state))
        before = jax.tree.leaves(state.optimizer)
        moved.append(float(np.abs(np.subtract(*pair)).max()))
        assert len(before) == len(jax.tree.leaves(new.optimizer))
        state = new
    # two steps in each epoch: 0.1, 0.55 and 1 of the rate, half of it from the fifth, a quarter from the eighth epoch
    assert moved[0] == pytest.approx(1e-3, rel=1e-3)
    assert moved[2] / moved[1] > 3 and moved[10] < 0.7 * moved[9] and moved[16] < 0.7 * moved[15]


def test_scores_say_how_uneven_an_image_is():
    even = np.ones((2, 4, 4, 2), np.float32)
    even[1, 1, 2] = 30.0
    detector, frozen = built([even], condition_dimension=4)
    spec = spec_for(detector, frozen, 4, (16, 16, 3))
    state = detector.init(jax.random.key(0), frozen, spec)
    found = predict(detector, state, frozen, np.zeros((2, 16, 16, 3), np.float32))
    assert found.score[1] > found.score[0] and found.map.shape == (2, 16, 16)
    assert np.all(found.map.min(axis=(1, 2)) == 0) and found.map[1].max() > found.map[0].max()


def test_transistor_has_its_own_size():
    assert load_config("unsupervised/msflow.py:mvtec_ad,category=transistor").data.resize == 256
    assert load_config("unsupervised/msflow.py:mvtec_ad,category=cable").data.resize == 512


def test_refusals():
    levels = [np.zeros((2, 4, 4, 2), np.float32)]
    with pytest.raises(UserError, match="a number for each of the 1 layers, got 2"):
        built(levels, blocks=(1, 2))
    with pytest.raises(UserError, match=r"decay_at\[0\]"):
        built(levels, decay_at=(1.5,))
    detector, frozen = built([np.zeros((2, 4, 4, 3), np.float32)])
    with pytest.raises(UserError, match="even number of channels"):
        detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 4, (8, 8, 3)))
