"""MH-PatchCore against NumPy and SciPy: whitening, the bank of coresets, scores."""

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from iadjax.detectors.memory_bank.mh_patchcore import farthest_first, mh_patchcore
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, embed, predict, spec_for

FROZEN = {"backbone": {}}
OPTIONS = {"layers": ("layer2",), "pretrain_dimension": 12, "target_dimension": 12, "variance": 0.9, "shrinkage": 0.2}


def fitted(images, batch_size, **options):
    """The detector, what predicts, and the features `[N, P, 12]` in float64."""
    detector = mh_patchcore(tiny.bank(), **OPTIONS, **options)
    spec = spec_for(detector, FROZEN, len(images), images.shape[1:], batch_size=batch_size)
    state = detector.init(None, FROZEN, spec)
    for phase in detector.phases(spec):
        update = jax.jit(phase.update)
        for start in range(0, len(images), batch_size):
            part = images[start : start + batch_size]
            valid = np.arange(batch_size) < len(part)
            part = np.concatenate([part, images[: batch_size - len(part)]])
            state, _ = update(None, state, FROZEN, batch_of(detector, FROZEN, part, valid=valid))
            if phase.between:
                state = phase.between(None, state, FROZEN)
        state = phase.finalize(None, state, FROZEN)
    x = np.asarray(embed(detector, FROZEN, images), np.float64)
    return detector, state, x.reshape(len(images), -1, 12)


def images(number, seed=0):
    return np.random.default_rng(seed).random((number, 32, 32, 3), np.float32)


def whitened_by_cholesky(x, y):
    """Three passes as the authors make them: axes, then the covariance of the projections, then its Cholesky factor."""
    flat = x.reshape(-1, 12)
    mean = flat.mean(0)
    variances, axes = np.linalg.eigh(np.cov(flat.T))
    variances, axes = variances[::-1], axes[:, ::-1]
    k = int(np.argmax(np.cumsum(variances) / variances.sum() >= 0.9)) + 1
    covariance = np.cov(((flat - mean) @ axes[:, :k]).T)
    covariance = 0.8 * covariance + 0.2 * np.trace(covariance) / k * np.eye(k)
    inverse = np.linalg.inv(np.linalg.cholesky(covariance)).T
    return [(each.reshape(-1, 12) - mean) @ axes[:, :k] @ inverse for each in (x, y)]


def test_scores_and_maps_are_those_of_three_passes():
    detector, state, x = fitted(images(3), 3, bank_size=1000, local_size=256, num_neighbors=4, sigma=1.5)
    tests = images(2, 1)
    y = np.asarray(embed(detector, FROZEN, tests), np.float64).reshape(2, -1, 12)
    bank, queries = whitened_by_cholesky(x, y)
    assert len(state.bank) == len(bank) == 48
    squares = cdist(queries, bank) ** 2
    distance = squares.min(1).reshape(2, 16)
    found = predict(detector, state, FROZEN, tests)
    for i in range(2):
        worst = 16 * i + distance[i].argmax()
        support = np.argsort(cdist(bank[squares[worst].argmin()][None], bank)[0])[:4]
        weight = 1 - np.exp(distance[i].max()) / np.exp(squares[worst, support]).sum()
        np.testing.assert_allclose(found.score[i], weight * distance[i].max(), rtol=1e-3)
    place = np.clip((np.arange(32) + 0.5) / 8 - 0.5, 0, 3)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(4)))
    maps = np.einsum("ai,bij,cj->bac", weights, distance.reshape(2, 4, 4), weights)
    parity.assert_close(found.map, gaussian_filter(maps, (0, 1.5, 1.5)), 1e-3)


def coreset(points, number):
    """The loop of single picks."""
    if number >= len(points):
        return points
    picks = [int(np.argmax(np.linalg.norm(points - points.mean(0), axis=1)))]
    distance = np.full(len(points), np.inf)
    while len(picks) < number:
        distance = np.minimum(distance, np.linalg.norm(points - points[picks[-1]], axis=1))
        distance[picks] = -1
        picks.append(int(distance.argmax()))
    return points[picks]


def test_the_bank_is_a_coreset_of_coresets_whatever_the_batch():
    pictures = images(7)
    _, state, x = fitted(pictures, 3, block_images=2, local_size=6, bank_size=10)
    z = (x.reshape(7, -1, 12) - np.asarray(state.mean, np.float64)) @ np.asarray(state.whitening, np.float64)
    # blocks of two images: 1 and 2 merge, 3 and 4 do not, because 4 is the last image alone
    local = [coreset(np.concatenate(z[i : i + 2]), 6) for i in (0, 2, 4, 6)]
    pairs = [coreset(np.concatenate(local[i : i + 2]), 6) for i in (0, 2)]
    parity.assert_close(state.bank, coreset(coreset(np.concatenate(pairs), 6), 10), 1e-3)
    _, other, _ = fitted(pictures, 2, block_images=2, local_size=6, bank_size=10)
    parity.assert_close(other.bank, state.bank, 1e-4)


def test_farthest_first_begins_far_from_the_mean():
    points = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    np.testing.assert_array_equal(farthest_first(points, 9, 40), coreset(points[:40], 9))
    assert len(farthest_first(points, 50, 40)) == 40


def test_bad_options_are_refused():
    bank = tiny.bank()
    with pytest.raises(UserError, match="shrinkage must be in"):
        mh_patchcore(bank, layers=("layer2",), shrinkage=1.5)
    with pytest.raises(UserError, match="patch_size must be a positive odd number"):
        mh_patchcore(bank, layers=("layer2",), patch_size=2)
