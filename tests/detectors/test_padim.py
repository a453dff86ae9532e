"""PaDiM against the formulas in NumPy float64."""

import jax
import numpy as np
import pytest

from iadjax.detectors.distribution.padim import padim
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, phases, predict, spec_for


def fitted(images, batch_size, **options):
    backbone = tiny.bank()
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = padim(backbone, **options)
    state = jax.jit(detector.init, static_argnums=2)(
        jax.random.key(1), frozen, spec_for(detector, frozen, len(images), images.shape[1:])
    )
    for start in range(0, len(images), batch_size):
        rows = images[start : start + batch_size]
        valid = np.arange(batch_size) < len(rows)
        # what stands in padded rows must not matter
        image = np.concatenate([rows, np.full((batch_size - len(rows), *images.shape[1:]), 0.7, np.float32)])
        batch = batch_of(detector, frozen, image, valid=valid)
        state, _ = jax.jit(phases(detector)[0].update)(jax.random.key(2), state, frozen, batch)
    moments = state
    return backbone, frozen, detector, moments, phases(detector)[0].finalize(jax.random.key(3), state, frozen)


def features(backbone, frozen, images, channels):
    levels = [np.asarray(x, np.float64) for x in parity.features(backbone, frozen["backbone"], images, backbone.layers)]
    side = levels[0].shape[1]
    levels = [np.kron(x, np.ones((1, side // x.shape[1], side // x.shape[1], 1))) for x in levels]
    return np.concatenate(levels, -1)[..., channels].reshape(len(images), side * side, -1)


@pytest.mark.parametrize("batch_size", [3, 8])
def test_moments_and_distance(batch_size):
    rng = np.random.default_rng(0)
    images, tests = rng.random((7, 32, 32, 3), np.float32), rng.random((2, 32, 32, 3), np.float32)
    backbone, frozen, detector, moments, state = fitted(images, batch_size, num_channels=11, sigma=0.0)
    x = features(backbone, frozen, images, np.asarray(state.constants))
    assert len(np.unique(state.constants)) == 11
    covariance = np.stack([np.cov(x[:, p], rowvar=False) for p in range(x.shape[1])])
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments.scatter / 6, covariance, atol=1e-4 * np.abs(covariance).max())
    y = features(backbone, frozen, tests, np.asarray(state.constants)) - x.mean(0)
    inverse = np.linalg.inv(covariance + 0.01 * np.eye(11))
    distance = np.sqrt(np.einsum("bpi,pij,bpj->bp", y, inverse, y)).reshape(2, 8, 8)
    place = np.clip((np.arange(32) + 0.5) / 4 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(8)))
    truth = np.einsum("ai,bij,cj->bac", weights, distance, weights)
    prediction = predict(detector, state, frozen, tests)
    np.testing.assert_allclose(prediction.map, truth, rtol=2e-3)
    np.testing.assert_allclose(prediction.score, truth.max((1, 2)), rtol=2e-3)


def test_fewer_images_than_channels_stay_finite():
    rng = np.random.default_rng(0)
    images = rng.random((2, 32, 32, 3), np.float32)
    _, frozen, detector, _, state = fitted(images, 2, num_channels=0)
    assert np.all(np.isfinite(predict(detector, state, frozen, images).map))


def test_bad_options_are_refused():
    images = np.zeros((1, 32, 32, 3), np.float32)
    with pytest.raises(UserError, match="more than the 54 channels"):
        fitted(images, 1, num_channels=100)
    with pytest.raises(UserError, match="epsilon must be above 0"):
        fitted(images, 1, epsilon=0.0)
