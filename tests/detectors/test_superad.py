"""SuperAD against its definition in NumPy."""

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from iadjax.detectors.memory_bank.superad import superad
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, predict, spec_for

FROZEN, LAYERS = {"backbone": {}}, ("layer2", "layer3")


def images(number, seed=0):
    return np.random.default_rng(seed).random((number, 32, 32, 3), np.float32)


@pytest.mark.parametrize(
    ("options", "number"), [({"num_references": 3}, 3), ({"num_references": 0, "reference_ratio": 0.4}, 2)]
)
def test_scores_and_maps_follow_the_paper(options, number):
    bank = tiny.bank()
    detector = superad(bank, layers=LAYERS, class_layer="layer3", num_neighbors=2, top=0.25, sigma=1.5, **options)
    spec = spec_for(detector, FROZEN, 5, (32, 32, 3))
    (phase,) = detector.phases(spec)
    state = detector.init(None, FROZEN, spec)
    state, _ = jax.jit(phase.update)(None, state, FROZEN, batch_of(detector, FROZEN, images(5)))
    key = jax.random.key(7)
    state = phase.finalize(key, state, FROZEN)
    tests = images(2, 1)
    found = predict(detector, state, FROZEN, tests)
    train, levels = (
        [np.asarray(x, np.float64) for x in parity.features(bank, {}, each, LAYERS)] for each in (images(5), tests)
    )
    # the references: each image is the farthest from those before
    descriptors, chosen = train[1].mean((1, 2)), [int(jax.random.randint(key, (), 0, 5))]
    while len(chosen) < number:
        distance = np.linalg.norm(descriptors[:, None] - descriptors[chosen], axis=-1).min(1)
        chosen.append(int(distance.argmax()))
    maps, patches = np.zeros((2, 32, 32)), np.zeros((2, 4, 4))
    for level, others in zip(levels, train, strict=True):
        side, depth = level.shape[1], level.shape[-1]
        x, y = (each / np.linalg.norm(each, axis=-1, keepdims=True) for each in (level, others[chosen]))
        distance = np.sort(1 - x.reshape(-1, depth) @ y.reshape(-1, depth).T, axis=1)[:, :2].mean(1).reshape(2, side, side)
        for target, size in ((maps, 32), (patches, 4)):
            place = np.clip((np.arange(size) + 0.5) * side / size - 0.5, 0, side - 1)
            weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(side)))
            target += np.einsum("ai,bij,cj->bac", weights, distance, weights) / 2
    parity.assert_close(found.map, gaussian_filter(maps, (0, 1.5, 1.5)), 1e-3)
    parity.assert_close(found.score, np.sort(patches.reshape(2, -1), axis=1)[:, -4:].mean(1), 1e-3)


def test_bad_options_are_refused():
    bank = tiny.bank()
    with pytest.raises(UserError, match="reference_ratio must be in"):
        superad(bank, layers=LAYERS, class_layer="layer3", reference_ratio=0)
    with pytest.raises(UserError, match="has no layer 'class'"):
        superad(bank, layers=LAYERS)
