"""SOMAD in NumPy float64: the map's training feature by feature, the Gaussians of its neurons, distances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.memory_bank.somad import Neurons, neighborhood_mean, radii, somad
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import padded_batches, predict, spec_for

SIZE, LAYERS, FROZEN = 16, ("layer1", "layer2"), {"backbone": {}}
OPTIONS = {
    "layers": LAYERS,
    "num_channels": 5,
    "side": 6,
    "rough_epochs": 2,
    "fine_epochs": 1,
    "num_neighbors": 2,
    "sigma": 0.0,
}
IMAGES, TESTS = (np.random.default_rng(seed).random((number, SIZE, SIZE, 3), np.float32) for seed, number in ((0, 7), (5, 2)))


def fitted(batch_size, **options):
    """The detector and its state after each phase."""
    detector = somad(tiny.bank(), **{**OPTIONS, **options})
    spec = spec_for(detector, FROZEN, len(IMAGES), IMAGES.shape[1:])
    state, states = detector.init(jax.random.key(1), FROZEN, spec), []
    for phase in detector.phases(spec):
        update = jax.jit(phase.update)
        for _ in range(phase.epochs):
            for batch in padded_batches(detector, FROZEN, IMAGES, batch_size):
                state, _ = update(jax.random.key(0), state, FROZEN, batch)
        nested = jax.tree.structure(phase.finalized(state))
        state = phase.finalize(jax.random.key(0), state, FROZEN)
        assert jax.tree.structure(state) == nested
        states.append(state)
    return detector, states


def matrix(size, target, align):
    """Of the bilinear resize of one axis."""
    place = np.arange(target) * (size - 1) / (target - 1) if align else (np.arange(target) + 0.5) * size / target - 0.5
    return np.maximum(0, 1 - np.abs(np.clip(place, 0, size - 1)[:, None] - np.arange(size)))


def resized(x, target, align=False):
    rows = matrix(x.shape[1], target, align)
    return np.einsum("ai,bijd,cj->bacd", rows, x, rows)


def features(images, channels):
    first, second = (np.asarray(level, np.float64) for level in parity.features(tiny.bank(), {}, images, LAYERS))
    return np.concatenate([first, resized(second, first.shape[1], align=True)], axis=-1)[..., channels]


def organized(x, weights, side, radius):
    """The weights after a pass over features `[N, D]`, one after the other."""
    totals, number = np.zeros_like(weights), np.zeros(len(weights))
    for each in x:
        best = np.linalg.norm(each - weights, axis=1).argmin()
        for neuron in range(len(weights)):
            squared = (best // side - neuron // side) ** 2 + (best % side - neuron % side) ** 2
            near = np.exp(-squared / (2 * radius**2))
            totals[neuron] += near * each
            number[neuron] += near
    return totals / number[:, None]


@pytest.mark.parametrize("batch_size", [3, 7])
def test_the_map_its_gaussians_and_distances_follow_the_formulas(batch_size):
    detector, (first, middle, state) = fitted(batch_size)
    assert len(np.unique(state.channels)) == 5
    x = features(IMAGES, np.asarray(state.channels))
    weights = resized(x.mean(axis=0)[None], 6).reshape(36, 5)
    np.testing.assert_allclose(first.weights, weights, rtol=1e-4, atol=1e-5)
    x = x.reshape(-1, 5)
    for radius in (2.0, 1.0, 1.0):
        weights = organized(x, weights, 6, radius)
    np.testing.assert_allclose(middle.weights, weights, rtol=1e-4)
    label = np.linalg.norm(x[:, None] - weights, axis=2).argmin(axis=1)
    kept = [k for k in range(36) if np.sum(label == k)]
    assert len(kept) < 36
    np.testing.assert_allclose(state.weights, weights[kept], rtol=1e-4)
    y = features(TESTS, np.asarray(state.channels))
    grid, y = y.shape[:3], y.reshape(-1, 5)
    distances = np.empty((len(y), len(kept)))
    for column, k in enumerate(kept):
        part = x[label == k]
        np.testing.assert_allclose(state.mean[column], part.mean(axis=0), rtol=1e-4)
        covariance = np.cov(part, rowvar=False) if len(part) > 1 else np.zeros((5, 5))
        delta = y - part.mean(axis=0)
        inverse = np.linalg.inv(covariance + 0.01 * np.eye(5))
        distances[:, column] = np.sqrt(np.einsum("ni,ij,nj->n", delta, inverse, delta))
    near = np.argsort(np.linalg.norm(y[:, None] - weights[kept], axis=2), axis=1)[:, :2]
    found = np.take_along_axis(distances, near, axis=1).min(axis=1)
    # the nearest Gaussian of all is not always among them
    assert np.any(found > distances.min(axis=1) * 1.01)
    expected = resized(found.reshape(*grid, 1), SIZE)[..., 0]
    prediction = predict(detector, state, FROZEN, TESTS)
    np.testing.assert_allclose(prediction.map, expected, rtol=2e-3)
    np.testing.assert_allclose(prediction.score, expected.max(axis=(1, 2)), rtol=2e-3)


@pytest.mark.parametrize("radius", [0.5, 1.7])
def test_a_pass_moves_neurons_with_their_neighbours(radius):
    rng = np.random.default_rng(0)
    weights, x = rng.random((16, 3)), rng.random((40, 3))
    best = np.linalg.norm(x[:, None] - weights, axis=2).argmin(axis=1)
    sums = np.stack([np.append((x[best == k] - weights[k]).sum(axis=0), np.sum(best == k)) for k in range(16)])
    found = neighborhood_mean(*(jnp.asarray(each, jnp.float32) for each in (weights, sums, radius)))
    np.testing.assert_allclose(found, organized(x, weights, 4, radius), rtol=1e-4)


def test_a_neuron_beyond_reach_keeps_its_weights():
    weights, sums = jnp.arange(64.0)[:, None], jnp.zeros((64, 2)).at[0].set(jnp.array([4.0, 2.0]))
    found = neighborhood_mean(weights, sums, jnp.float32(0.5))
    assert found[-1] == 63 and found[0] == 2 and np.all(np.isfinite(found))


def test_the_radius_falls_as_in_the_authors_code():
    found = radii(56, 20, 15)
    assert len(found) == 35 and found[0] == 19 and found[34] == 1
    np.testing.assert_allclose(found[[19, 20]], [19 / 6, 56 / 12])
    np.testing.assert_allclose(np.diff(found[:20]), (19 / 6 - 19) / 19)
    assert np.array_equal(radii(2, 2, 0), [1, 1])


def test_fewer_neurons_with_features_than_neighbours():
    detector = somad(tiny.bank(), **{**OPTIONS, "num_neighbors": 5})
    mean = np.random.default_rng(0).random((1, 5), np.float32)
    state = Neurons(jnp.arange(5), jnp.asarray(mean), jnp.asarray(mean), jnp.eye(5)[None])
    x = features(TESTS, np.arange(5))
    expected = resized(np.linalg.norm(x - mean, axis=-1)[..., None], SIZE)[..., 0]
    np.testing.assert_allclose(predict(detector, state, FROZEN, TESTS).map, expected, rtol=1e-4)


def test_bad_options_are_refused():
    for option, value in (("side", 0), ("rough_epochs", 0), ("num_neighbors", 0), ("epsilon", 0.0), ("sigma", -1.0)):
        with pytest.raises(UserError, match=f"detector.{option} must be"):
            somad(tiny.bank(), **{**OPTIONS, option: value})
    detector = somad(tiny.bank(), **{**OPTIONS, "num_channels": 40})
    with pytest.raises(UserError, match="num_channels=40 is more than the 36 channels of layer1, layer2"):
        detector.init(jax.random.key(0), FROZEN, spec_for(detector, FROZEN, 2, IMAGES.shape[1:]))
