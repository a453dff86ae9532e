"""MuSc against its definition in NumPy, for images of the batch and for others."""

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from iadjax import backbones, ops
from iadjax.backbones.vit_specs import SPECS, Spec
from iadjax.detectors.zero_shot.musc import musc
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, spec_for

FROZEN = {"backbone": {}}
LAYERS, DEGREES, LOWEST, NEIGHBORS = ("layer2", "layer3"), (1, 3), 0.5, (2, 3)


def images(number, seed=0):
    return np.random.default_rng(seed).random((number, 32, 32, 3), np.float32)


@pytest.fixture(scope="module")
def fitted():
    detector = musc(
        tiny.bank(),
        layers=LAYERS,
        class_layer="layer3",
        degrees=DEGREES,
        lowest=LOWEST,
        neighbors=NEIGHBORS,
    )
    spec = spec_for(detector, FROZEN, 5, (32, 32, 3))
    (phase,) = detector.phases(spec)
    state = detector.init(jax.random.key(0), FROZEN, spec)
    state, _ = jax.jit(phase.update)(None, state, FROZEN, batch_of(detector, FROZEN, images(5)))
    return detector, phase.finalize(None, state, FROZEN)


def scored(fitted, pixels, index):
    detector, state = fitted
    batch = batch_of(detector, FROZEN, pixels)._replace(index=np.asarray(index, np.int32), mask=None, label=None)
    return jax.jit(detector.predict)(state, FROZEN, batch)


def features(pixels):
    """For every layer and degree: `[N, P, C]` float64; and descriptors."""
    levels = [np.asarray(each, np.float64) for each in parity.features(tiny.bank(), {}, pixels, LAYERS)]
    unit = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    found = []
    for level in levels:
        x = (level - level.mean((1, 2, 3), keepdims=True)) / np.sqrt(level.var((1, 2, 3), keepdims=True) + 1e-5)
        height, width = x.shape[1:3]
        for degree in DEGREES:
            pad = degree // 2
            padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
            pooled = sum(padded[:, i : i + height, j : j + width] for i in range(degree) for j in range(degree)) / degree**2
            pooled = np.asarray(ops.resize(pooled.astype(np.float32), levels[0].shape[1:3]), np.float64)
            found.append(unit(pooled.reshape(len(x), -1, x.shape[-1])))
    return found, unit(levels[-1].mean((1, 2)))


def mutual(queries, sets, left_out):
    """`[P]` of one image."""
    means = []
    for query, others in zip(queries, sets, strict=True):
        distances = np.stack([cdist(query, other).min(axis=1) for j, other in enumerate(others) if j != left_out])
        means.append(np.sort(distances, axis=0)[: max(1, int(LOWEST * len(distances)))].mean(axis=0))
    return np.mean(means, axis=0)


def upsampled(grid):
    place = np.arange(32) * (grid.shape[1] - 1) / 31
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(grid.shape[1])))
    return np.einsum("ai,bij,cj->bac", weights, grid, weights)


def rescored(scores, similarity):
    means = []
    for k in NEIGHBORS:
        order = np.argsort(-similarity)[:k]
        means.append(np.sum(similarity[order] * scores[order]) / similarity[order].sum())
    return np.mean(means)


def test_images_of_the_batch_score_each_other(fitted):
    sets, descriptors = features(images(5))
    maps = upsampled(np.stack([mutual([z[i] for z in sets], sets, i) for i in range(5)]).reshape(5, 4, 4))
    largest = maps.max((1, 2))
    scaled = (largest - largest.min()) / np.ptp(largest)
    order = [3, 0, 4]
    found = scored(fitted, images(5)[order], order)
    parity.assert_close(found.map, maps[order], 1e-4)
    expected = np.array([rescored(scaled, descriptors @ descriptors[i]) for i in order])
    parity.assert_close(found.score, expected, 1e-4)


@pytest.mark.parametrize("index", [-1, 1])
def test_other_images_are_compared_with_all_whatever_their_position(fitted, index):
    new = images(1, seed=1)
    (sets, descriptors), (queries, descriptor) = features(images(5)), features(new)
    maps = upsampled(mutual([z[0] for z in queries], sets, None).reshape(1, 4, 4))
    largest = np.asarray(fitted[1].largest, np.float64)
    scaled = (np.append(largest, maps.max()) - largest.min()) / np.ptp(largest)
    similarity = np.concatenate([descriptors, descriptor]) @ descriptor[0]
    # beside an image of the batch
    found = scored(fitted, np.concatenate([new, images(5)[2:3]]), [index, 2])
    parity.assert_close(found.map[:1], maps, 1e-4)
    parity.assert_close(found.score[:1], np.array([rescored(scaled, similarity)]), 1e-4)
    np.testing.assert_allclose(found.score[1], fitted[1].score[2])


def test_layers_and_descriptor_are_those_of_clip(monkeypatch):
    spec = Spec(
        patch=8, dim=16, depth=2, heads=2, grid=4, registers=0, distilled=False, layer_scale=False, hub="", embedding=12
    )
    monkeypatch.setitem(SPECS, "tiny", spec)
    backbone = backbones.backbone("tiny")
    detector = musc(backbone, layers=("block1", "block2"))
    frozen = {"backbone": backbone.init(jax.random.key(0), ("embedding",))}
    levels, descriptor = jax.jit(detector.embed)(frozen, images(2))
    assert [level.shape for level in levels] == [(2, 4, 4, 16)] * 2
    first, embedding = backbone.features(frozen["backbone"], images(2), ("block1", "embedding"))
    np.testing.assert_allclose(
        levels[0], (first - first.mean((1, 2, 3), keepdims=True)) / first.std((1, 2, 3), keepdims=True), atol=1e-3
    )
    np.testing.assert_allclose(descriptor, embedding / np.linalg.norm(embedding, axis=1, keepdims=True), atol=1e-5)


def test_only_blocks_of_pairs_are_held(monkeypatch):
    x = np.random.default_rng(0).standard_normal((7, 5, 4)).astype(np.float32)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    truth = np.stack([[cdist(a, b).min(axis=1) for b in x] for a in x])
    truth[np.eye(7, dtype=bool)] = 0
    shapes, steps = set(), []
    for rows in (1, 2, 3, 7, 100):
        monkeypatch.setattr("iadjax.ops.sets._BLOCK_BYTES", 4 * 25 * rows)
        compiled = ops.sets._compiled
        monkeypatch.setattr(
            "iadjax.ops.sets._compiled", lambda *given, compiled=compiled: shapes.add(given[3]) or compiled(*given)
        )
        found = ops.mutual_distances(x, lambda done, total: steps.append((done, total)))
        np.testing.assert_allclose(found, truth, atol=2e-3)
    assert shapes == {1, 2, 3, 7} and steps[6] == (7, 7)


def test_bad_options_are_refused():
    bank = tiny.bank()
    options = {"layers": ("layer1",), "class_layer": "layer1"}
    with pytest.raises(UserError, match="degrees must be a positive odd number, got 2"):
        musc(bank, **options, degrees=(1, 2))
    with pytest.raises(UserError, match="neighbors at least 1"):
        musc(bank, **options, neighbors=(0,))
    with pytest.raises(UserError, match="has no layer 'embedding'"):
        musc(bank, layers=("layer1",))
    detector = musc(bank, **options)
    with pytest.raises(UserError, match="musc compares images with each other and got one"):
        detector.init(None, FROZEN, spec_for(detector, FROZEN, 1, (32, 32, 3)))
