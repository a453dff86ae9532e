"""SPADE against its definition in NumPy."""

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from iadjax.detectors.memory_bank.spade import spade
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, predict, spec_for

FROZEN, LAYERS = {"backbone": {}}, ("layer2", "layer3")


def images(number, seed):
    return np.random.default_rng(seed).random((number, 32, 32, 3), np.float32)


@pytest.mark.parametrize(("num_images", "kappa"), [(2, 3), (9, 1)])
def test_scores_and_maps_follow_the_paper(num_images, kappa):
    bank = tiny.bank()
    detector = spade(bank, layers=LAYERS, class_layer="layer3", num_images=num_images, num_neighbors=kappa, sigma=1.5)
    spec = spec_for(detector, FROZEN, 4, (32, 32, 3))
    train, tests = images(4, 0), images(2, 1)
    state = detector.init(None, FROZEN, spec)
    (phase,) = detector.phases(spec)
    # one padded row
    batch = batch_of(detector, FROZEN, np.concatenate([train, tests[:1]]), valid=[True] * 4 + [False])
    state, _ = jax.jit(phase.update)(None, state, FROZEN, batch)
    found = predict(detector, state, FROZEN, tests)
    levels, others = ([np.asarray(x, np.float64) for x in parity.features(bank, {}, each, LAYERS)] for each in (tests, train))
    whole = cdist(levels[1].mean((1, 2)), others[1].mean((1, 2)))
    k = min(num_images, 4)
    parity.assert_close(found.score, np.sort(whole, axis=1)[:, :k].mean(1), 1e-4)
    maps = np.zeros((2, 32, 32))
    for level, gallery in zip(levels, others, strict=True):
        side, depth = level.shape[1], level.shape[-1]
        place = np.clip((np.arange(32) + 0.5) * side / 32 - 0.5, 0, side - 1)
        weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(side)))
        for i in range(2):
            pixels = gallery[np.argsort(whole[i])[:k]].reshape(-1, depth)
            distance = np.sort(cdist(level[i].reshape(-1, depth), pixels), axis=1)[:, :kappa].mean(1).reshape(side, side)
            maps[i] += weights @ distance @ weights.T / 2
    parity.assert_close(found.map, gaussian_filter(maps, (0, 1.5, 1.5)), 1e-4)


def test_bad_options_are_refused():
    bank = tiny.bank()
    with pytest.raises(UserError, match="has no layer 'layer4'"):
        spade(bank)
    with pytest.raises(UserError, match="num_images must be at least 1"):
        spade(bank, class_layer="layer3", num_images=0)
