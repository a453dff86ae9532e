"""RAD against its definition in NumPy: patches at about the same place in the retrieved images."""

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from iadjax.config import load_config
from iadjax.detectors.memory_bank import rad as module
from iadjax.detectors.memory_bank.rad import rad
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, predict, spec_for

FROZEN = {"backbone": {}}


def images(number, seed):
    return np.random.default_rng(seed).random((number, 32, 48, 3), np.float32)


def best_cosine(x, gallery, radius):
    """The definition: patch by patch."""
    height, width = x.shape[:2]
    best = np.empty((height, width))
    for r in range(height):
        for c in range(width):
            near = gallery[:, max(0, r - radius) : r + radius + 1, max(0, c - radius) : c + radius + 1]
            best[r, c] = (near @ x[r, c]).max()
    return best


@pytest.mark.parametrize(
    ("num_images", "radius", "positional", "block"), [(2, 1, True, 64), (3, 0, True, 2), (9, 9, True, 3), (3, 1, False, 2)]
)
def test_scores_and_maps_follow_the_paper(num_images, radius, positional, block, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    bank = tiny.bank()
    options = {"num_images": num_images, "radius": radius, "positional": positional}
    detector = rad(bank, layers=("layer2",), class_layer="layer3", map_size=0, kernel_size=3, top=0.1, **options)
    spec = spec_for(detector, FROZEN, 5, (32, 48, 3))
    train, tests = images(5, 0), images(2, 1)
    (phase,) = detector.phases(spec)
    state = detector.init(None, FROZEN, spec)
    state, _ = jax.jit(phase.update)(None, state, FROZEN, batch_of(detector, FROZEN, train))
    found = predict(detector, state, FROZEN, tests)
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    layers = ("layer2", "layer3")
    (x, top), (gallery, tops) = (
        [np.asarray(level, np.float64) for level in parity.features(bank, {}, each, layers)] for each in (tests, train)
    )
    similarity = unit(top.mean((1, 2))) @ unit(tops.mean((1, 2))).T
    maps = np.empty((2, 32, 48))
    for i in range(2):
        near = unit(gallery[np.argsort(-similarity[i])[:num_images]])
        distance = 1 - best_cosine(unit(x[i]), near, radius if positional else 99)
        rows, columns = (
            np.maximum(0, 1 - np.abs(np.clip((np.arange(8 * n) + 0.5) / 8 - 0.5, 0, n - 1)[:, None] - np.arange(n)))
            for n in (4, 6)
        )
        maps[i] = rows @ distance @ columns.T
    maps = gaussian_filter(maps, (0, 1.0, 1.0), mode="mirror", truncate=1.0)
    parity.assert_close(found.map, maps, 1e-4)
    parity.assert_close(found.score, np.sort(maps.reshape(2, -1), axis=1)[:, -153:].mean(1), 1e-4)


def test_the_map_is_scored_at_the_authors_size():
    detector = rad(tiny.bank(), layers=("layer2",), class_layer="layer3", map_size=16, top=0.1)
    square = np.random.default_rng(2).random((4, 48, 48, 3), np.float32)
    spec = spec_for(detector, FROZEN, 3, (48, 48, 3))
    state, batch = detector.init(None, FROZEN, spec), batch_of(detector, FROZEN, square[:3])
    state, _ = jax.jit(detector.phases(spec)[0].update)(None, state, FROZEN, batch)
    found = predict(detector, state, FROZEN, square[3:])
    # every third pixel of 48 lies on one of 16
    small = np.asarray(found.map)[0, 1::3, 1::3]
    np.testing.assert_allclose(found.score[0], np.sort(small.ravel())[-25:].mean(), rtol=1e-5)


def test_radius_and_images_follow_the_data_set():
    for dataset, expected in (("mvtec_ad", (150, 1)), ("visa", (900, 2)), ("real_iad", (900, 0))):
        options = load_config(f"multi_class/rad.py:{dataset}").detector
        assert (options.num_images, options.radius) == expected


def test_bad_options_are_refused():
    bank = tiny.bank()
    with pytest.raises(UserError, match="radius must be at least 0"):
        rad(bank, layers=("layer2",), class_layer="layer3", radius=-1)
    with pytest.raises(UserError, match="has no layer 'class'"):
        rad(bank, layers=("layer2",))
