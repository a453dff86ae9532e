"""GCPF in NumPy float64: centres, k-means, Gaussians by scikit-learn's covariances, the map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from iadjax.detectors.families.clusters import add_by_cluster, outer_products
from iadjax.detectors.memory_bank.gcpf import gcpf
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, padded_batches, predict, spec_for

SIDE, LAYERS, K, FROZEN = 32, ("layer1", "layer2"), 3, {"backbone": {}}
KMEANS, GAUSSIAN = 3, 1


def images_of(number, seed):
    """Images of stripes, so that features have clusters."""
    rng = np.random.default_rng(seed)
    light = np.repeat(rng.choice([0.1, 0.5, 0.9], (number, SIDE // 4, 1, 1)), 4, axis=1)
    return (light + 0.3 * rng.random((number, SIDE, SIDE, 3))).astype(np.float32)


IMAGES = images_of(7, 0)


def fitted(batch_size):
    """The detector, its state after each phase, each with the passes of NumPy's below."""
    detector = gcpf(tiny.bank(), layers=LAYERS, num_clusters=K, kmeans_epochs=KMEANS, gaussian_epochs=GAUSSIAN, sigma=0.0)
    spec = spec_for(detector, FROZEN, len(IMAGES), IMAGES.shape[1:])
    state, states = detector.init(jax.random.key(1), FROZEN, spec), []
    for phase in detector.phases(spec):
        update = jax.jit(phase.update)
        for _ in range(phase.epochs):
            for batch in padded_batches(detector, FROZEN, IMAGES, batch_size):
                state, _ = update(jax.random.key(0), state, FROZEN, batch)
                if phase.between is not None:
                    state = phase.between(jax.random.key(0), state, FROZEN)
        states.append(state)
    return detector, states, phase.finalize(jax.random.key(0), state, FROZEN)


def features(images):
    return [np.asarray(level, np.float64) for level in parity.features(tiny.bank(), {}, images, LAYERS)]


def gaussians(x, first):
    """The centres of k-means, and the Gaussians, of features `[N, D]`."""
    mu = first
    for _ in range(KMEANS):
        label = np.linalg.norm(x[:, None] - mu, axis=2).argmin(axis=1)
        mu = np.stack([x[label == k].mean(axis=0) for k in range(K)])
    centers, inverse = mu, np.stack([np.eye(x.shape[1])] * K)
    for _ in range(1 + GAUSSIAN):
        label = distances(x, mu, inverse).argmin(axis=1)
        parts = [x[label == k] for k in range(K)]
        assert min(len(part) for part in parts) > 1
        mu = np.stack([part.mean(axis=0) for part in parts])
        inverse = np.stack([np.linalg.inv(LedoitWolf().fit(part).covariance_) for part in parts])
    return centers, mu, inverse


def distances(x, mu, inverse):
    y = x[:, None] - mu
    return np.sqrt(np.einsum("nki,kij,nkj->nk", y, inverse, y))


def enlarged(maps):
    """Bilinear, to the size of the images."""
    side = maps.shape[1]
    place = np.clip((np.arange(SIDE) + 0.5) * side / SIDE - 0.5, 0, side - 1)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(side)))
    return np.einsum("ai,bij,cj->bac", weights, maps, weights)


@pytest.mark.parametrize("batch_size", [3, 7])
def test_clusters_and_maps_follow_the_formulas(batch_size):
    detector, (first, middle, last), state = fitted(batch_size)
    tests, expected = images_of(2, 5), 0
    for level, (x, y) in enumerate(zip(features(IMAGES), features(tests), strict=True)):
        chosen = x.reshape(len(x), -1, x.shape[-1])[np.asarray(first.images), np.asarray(first.positions[level])]
        assert len(np.unique(chosen, axis=0)) == K
        np.testing.assert_allclose(first.levels[level].mean, chosen, rtol=1e-5)
        centers, mu, inverse = gaussians(x.reshape(-1, x.shape[-1]), chosen)
        np.testing.assert_allclose(middle.levels[level].mean, centers, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(state.means[level], mu, rtol=1e-4, atol=1e-5)
        w = np.asarray(state.factors[level], np.float64)
        found = np.linalg.inv(w.transpose(0, 2, 1) @ w)
        covariance = np.linalg.inv(inverse)
        np.testing.assert_allclose(found, covariance, atol=1e-4 * np.abs(covariance).max())
        expected += enlarged(distances(y.reshape(-1, y.shape[-1]), mu, inverse).min(axis=1).reshape(y.shape[:3])) / len(LAYERS)
        assert not np.any(last.levels[level].products)
    prediction = predict(detector, state, FROZEN, tests)
    np.testing.assert_allclose(prediction.map, expected, rtol=2e-3)
    np.testing.assert_allclose(prediction.score, expected.max(axis=(1, 2)), rtol=2e-3)


def test_a_cluster_without_features_stays_as_it_is():
    detector = gcpf(tiny.bank(), layers=("layer3",), num_clusters=2)
    spec = spec_for(detector, FROZEN, 2, IMAGES.shape[1:])
    state = detector.init(jax.random.key(1), FROZEN, spec)
    _, means, covariances = detector.phases(spec)
    far = jnp.full_like(state.levels[0].mean[1], 1e3)
    state = state._replace(levels=(state.levels[0]._replace(mean=state.levels[0].mean.at[1].set(far)),))
    batch = batch_of(detector, FROZEN, IMAGES[:2])
    state, _ = means.update(jax.random.key(0), state, FROZEN, batch)
    state, _ = covariances.update(jax.random.key(0), state, FROZEN, batch)
    state = covariances.between(jax.random.key(0), state, FROZEN)
    clusters = state.levels[0]
    assert np.array_equal(clusters.mean[1], far) and np.array_equal(clusters.factor[1], np.eye(18))
    assert np.all(clusters.mean[0] != 0) and np.all(np.isfinite(clusters.factor[0]))


@pytest.mark.parametrize("block", [1, 4, 100])
def test_sums_of_clusters(block):
    rng = np.random.default_rng(0)
    rows, label, totals = rng.random((50, 3), np.float32), rng.integers(0, 6, 50), rng.random((5, 3, 3), np.float32)
    # a cluster without rows, and rows of no cluster
    label[label == 2] = 5
    expected = totals + np.stack([rows[label == k].T @ rows[label == k] for k in range(5)])
    add = jax.jit(add_by_cluster, static_argnums=(3, 4))
    np.testing.assert_allclose(add(totals, rows, label.astype(np.int32), outer_products, block), expected, rtol=1e-5)


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="num_clusters must be at least 1"):
        gcpf(tiny.bank(), num_clusters=0)
    with pytest.raises(UserError, match="sigma must be at least 0"):
        gcpf(tiny.bank(), sigma=-1.0)
    detector = gcpf(tiny.bank(), layers=LAYERS, num_clusters=17)
    with pytest.raises(UserError, match="more than the 16 positions of layer2"):
        detector.init(jax.random.key(0), FROZEN, spec_for(detector, FROZEN, 2, IMAGES.shape[1:]))
