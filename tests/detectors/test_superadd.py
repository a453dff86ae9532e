"""SuperADD: tiles against the whole, thinned banks, brightness."""

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from iadjax.detectors.memory_bank.superadd import superadd, thinned
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, predict, spec_for

FROZEN = {"backbone": {}}


def images(number, seed=0):
    return np.random.default_rng(seed).random((number, 32, 32, 3), np.float32)


def fitted(pictures, **options):
    bank = tiny.bank()
    detector = superadd(bank, **({"tile": 0, "brightness": 0.0} | options))
    spec = spec_for(detector, FROZEN, len(pictures), pictures.shape[1:])
    (phase,) = detector.phases(spec)
    extra = {}
    if phase.augment:
        extra = {
            "brightened": np.stack(
                [phase.augment(np.random.default_rng(i), x, None)["brightened"] for i, x in enumerate(pictures)]
            )
        }
    batch = batch_of(detector, FROZEN, pictures, extra=extra)
    state, _ = jax.jit(phase.update)(None, detector.init(None, FROZEN, spec), FROZEN, batch)
    return detector, phase.finalize(jax.random.key(0), state, FROZEN), extra


def test_scores_and_maps_follow_the_paper():
    layers = ("layer2", "layer3")
    detector, state, _ = fitted(images(3), layers=layers, sigma=1.5, top=0.01)
    tests = images(2, 1)
    found = predict(detector, state, FROZEN, tests)
    bank = tiny.bank()
    maps = np.zeros((2, 32, 32))
    train, levels = (
        [np.asarray(x, np.float64) for x in parity.features(bank, {}, each, layers)] for each in (images(3), tests)
    )
    for level, others in zip(levels, train, strict=True):
        side, depth = level.shape[1], level.shape[-1]
        distance = cdist(level.reshape(-1, depth), others.reshape(-1, depth)).min(1).reshape(2, side, side) / depth
        place = np.clip((np.arange(32) + 0.5) * side / 32 - 0.5, 0, side - 1)
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(side)))
        maps += np.einsum("ai,bij,cj->bac", weights, distance, weights) / 2
    maps = gaussian_filter(maps, (0, 1.5, 1.5), mode="mirror")
    parity.assert_close(found.map, maps, 1e-4)
    parity.assert_close(found.score, np.sort(maps.reshape(2, -1), axis=1)[:, -10:].mean(1), 1e-4)


def test_tokens_of_tiles_are_thinned_to_the_bank_size():
    detector, state, _ = fitted(images(4), layers=("layer2",), tile=24, overlap=8, bank_size=20, subsets=3)
    assert state.levels[0].shape == (20, 18)
    # all of them are tokens of the tiles: the nearest distance to an unthinned bank is zero
    _, whole, _ = fitted(images(4), layers=("layer2",), tile=24, overlap=8)
    assert len(whole.levels[0]) == 64
    np.testing.assert_allclose(cdist(state.levels[0], whole.levels[0]).min(axis=1), 0, atol=1e-6)


def test_training_images_are_brightened():
    pictures = images(3)
    _, state, extra = fitted(pictures, layers=("layer2",), brightness=0.2)
    factor = 1 + np.random.default_rng(1).uniform(-0.2, 0.2)
    np.testing.assert_allclose(extra["brightened"][1], np.clip(pictures[1] * factor, 0, 1), atol=1e-6)
    tokens = parity.features(tiny.bank(), {}, extra["brightened"], ("layer2",))[0]
    np.testing.assert_allclose(state.levels[0], np.asarray(tokens).reshape(-1, 18), atol=1e-5)


def test_thinning_leaves_dense_places():
    rng = np.random.default_rng(0)
    # nine tenths of the tokens lie within one spot
    dense, wide = 0.01 * rng.standard_normal((900, 4)), 10 * rng.standard_normal((100, 4))
    tokens = np.concatenate([dense, wide]).astype(np.float32)
    index = thinned(np.random.default_rng(1), tokens, 150, 4, 100)
    assert len(index) == 150 == len(set(index)) and np.all(np.diff(index) > 0)
    # by chance alone it would be 15 of the hundred
    assert np.sum(index >= 900) > 35
    np.testing.assert_array_equal(thinned(rng, tokens, 1000, 4, 100), np.arange(1000))
    # one dense cloud: the probability to stay is never small enough
    assert len(thinned(rng, np.zeros((900, 4), np.float32), 3, 2, 5)) == 3


def test_bad_options_are_refused():
    bank = tiny.bank()
    with pytest.raises(UserError, match="overlap must be in"):
        superadd(bank, layers=("layer2",), tile=64, overlap=32)
    with pytest.raises(UserError, match="tiles of 64 pixels with an overlap of 16 do not fit an image of 32x32"):
        spec_for(superadd(bank, layers=("layer2",), tile=64, overlap=16), FROZEN, 1, (32, 32, 3))
