"""SoftPatch against its definitions in NumPy float64."""

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import cdist

from iadjax.detectors.families.bank import Bank
from iadjax.detectors.memory_bank import softpatch as module
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

BACKBONE, FROZEN, LAYERS = pyramid(), {"backbone": pyramid_variables()}, ("layer2", "layer3")
KEY = jax.random.key(0)


def images(number, seed=0):
    return np.random.default_rng(seed).random((number, 32, 32, 3), np.float32)


def fitted(detector, train):
    spec = spec_for(detector, FROZEN, len(train), train.shape[1:])
    (phase,) = detector.phases(spec)
    state, _ = jax.jit(phase.update)(KEY, detector.init(KEY, FROZEN, spec), FROZEN, batch_of(detector, FROZEN, train))
    return state, phase.finalize(KEY, state, FROZEN)


def lof(x, k):
    d = cdist(x, x)
    np.fill_diagonal(d, np.inf)
    index = np.argsort(d, axis=1, kind="stable")[:, :k]
    near = np.take_along_axis(d, index, 1)
    density = 1 / np.maximum(near, near[index, -1]).mean(1)
    return density[index].mean(1) / density


def nearest(x, k):
    d = cdist(x, x)
    np.fill_diagonal(d, np.inf)
    return 1 + d.min(1)


def gaussian(x, k):
    delta = x - x.mean(0)
    covariance = np.cov(x.T) + 0.01 * np.eye(x.shape[1])
    return 1 + np.sqrt(np.einsum("ni,ni->n", delta, np.linalg.solve(covariance, delta.T).T))


@pytest.mark.parametrize(("name", "truth"), [("lof", lof), ("nearest", nearest), ("gaussian", gaussian)])
def test_weights_are_those_of_each_position(name, truth):
    rng = np.random.default_rng(1)
    # 4 positions; the last has fewer rows than the others
    counts, position = (9, 9, 9, 5), np.repeat(np.arange(4), (9, 9, 9, 5))
    order = rng.permutation(len(position))
    x = rng.normal(size=(len(position), 6)).astype(np.float32)
    origin = np.zeros((len(position), 3), np.int32)
    origin[:, 1] = position[order]
    bank = Bank(x, origin, np.int32(len(x)), np.int32(9), np.int32(4))
    table = module.by_position(bank)
    assert table.shape == (4, 9) and (table >= 0).sum(1).tolist() == list(counts)
    found = module.patch_weights(x, table, name, 3, len(x))
    for p in range(4):
        rows = np.flatnonzero(position[order] == p)
        np.testing.assert_allclose(found[rows], truth(x[rows].astype(np.float64), 3), rtol=2e-5)


def test_a_patch_that_is_alone_at_its_position_is_an_inlier():
    x, table = np.ones((3, 2), np.float32), np.array([[0, -1], [1, 2]], np.int32)
    for name in ("lof", "nearest", "gaussian"):
        found = module.patch_weights(x, table, name, 1, 3)
        # the two others are equal
        np.testing.assert_allclose(found, 1, atol=1e-6)


@pytest.mark.parametrize("squared", [False, True])
def test_scores_and_maps_follow_the_paper(squared):
    sizes = {"pretrain_dimension": 20, "target_dimension": 16, "lof_neighbors": 3}
    options = {"coreset_ratio": 0.5, "removed_fraction": 0.25, "sigma": 1.5, "squared": squared}
    detector = module.softpatch(BACKBONE, layers=LAYERS, **sizes, **options)
    bank, memory = fitted(detector, images(8))
    x = np.asarray(bank.features, np.float64).reshape(8, 16, 16)
    weights = np.stack([lof(x[:, p], 3) for p in range(16)], axis=1).reshape(-1)
    rows = np.asarray(memory.origin)
    kept = rows[:, 0] * 16 + rows[:, 1]
    # half of all patches, none of the quarter with the largest weights
    assert len(kept) == 64 and weights[kept].max() <= np.quantile(weights, 0.75) + 1e-6
    np.testing.assert_allclose(memory.weights, weights[kept], rtol=1e-4)
    test = images(2, 1)
    found = predict(detector, memory, FROZEN, test)
    queries = np.asarray(batch_of(detector, FROZEN, test).features, np.float64)
    for i in range(2):
        distance = cdist(queries[i].reshape(16, -1), x.reshape(128, -1)[kept])
        value = (distance.min(1) ** (2 if squared else 1) * weights[kept][distance.argmin(1)]).reshape(4, 4)
        np.testing.assert_allclose(found.score[i], value.max(), rtol=1e-4)
        place = np.clip((np.arange(32) + 0.5) / 8 - 0.5, 0, 3)
        hat = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(4)))
        np.testing.assert_allclose(found.map[i], gaussian_filter(hat @ value @ hat.T, 1.5), rtol=1e-3)


def test_patches_of_an_anomaly_among_the_training_images_stay_out():
    train = np.tile(images(1)[:, :8, :8], (8, 4, 4, 1)) + 0.02 * images(8, 2)
    train[3, 8:16, 8:16] = 1.0
    sizes = {"pretrain_dimension": 20, "target_dimension": 16, "lof_neighbors": 3, "coreset_ratio": 1.0}
    clean, noisy = (module.softpatch(BACKBONE, layers=LAYERS, **sizes, removed_fraction=part) for part in (0.15, 0.0))
    origins = [set(map(tuple, np.asarray(fitted(each, train)[1].origin)[:, :2])) for each in (clean, noisy)]
    # the patch (row 1, column 1) of image 3
    assert (3, 5) not in origins[0] and (3, 5) in origins[1]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"discriminator": "lofs"}, "knows no 'lofs'"),
        ({"lof_neighbors": 0}, "lof_neighbors must be at least 1"),
        ({"removed_fraction": 1.0}, r"removed_fraction must be in \[0, 1\)"),
    ],
)
def test_bad_options_are_refused(options, match):
    with pytest.raises(UserError, match=match):
        module.softpatch(BACKBONE, layers=LAYERS, **options)
