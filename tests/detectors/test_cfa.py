"""CFA against its formulas in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from iadjax.detectors.memory_bank.cfa import Adapting, cfa
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

BACKBONE, FROZEN, LAYERS = pyramid(), {"backbone": pyramid_variables()}, ("layer2", "layer3")
KEY = jax.random.key(0)


def images(number, seed=0):
    return np.random.default_rng(seed).random((number, 32, 32, 3), np.float32)


def remembered(detector, train):
    """The state after the first phase, over two batches of which the second has a padded row."""
    spec = spec_for(detector, FROZEN, len(train), train.shape[1:])
    phase = detector.phases(spec)[0]
    state, update = detector.init(KEY, FROZEN, spec), jax.jit(phase.update)
    state, _ = update(KEY, state, FROZEN, batch_of(detector, FROZEN, train[:3]))
    last = np.concatenate([train[3:], 9 + train[:1], train[:1]])
    state, info = update(KEY, state, FROZEN, batch_of(detector, FROZEN, last, valid=[True, False, False]))
    assert int(info["images"]) == 4
    return phase.finalize(KEY, state, FROZEN)


def outputs(state, detector, image):
    """phi of images by the definition: levels resized and concatenated, two coordinates, a convolution of kernel 1."""
    first, second = (np.asarray(level, np.float64) for level in batch_of(detector, FROZEN, image).features)
    side, half = first.shape[1], second.shape[1]
    place = np.clip((np.arange(side) + 0.5) * half / side - 0.5, 0, half - 1)
    hat = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(half)))
    larger = np.einsum("ip,jq,bpqc->bijc", hat, hat, second)
    rows, columns = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    both = np.broadcast_to(np.stack([rows, columns], -1), (*first.shape[:3], 2))
    params = state.trained.variables["params"]
    x = np.concatenate([first, larger, both], axis=-1)
    phi = x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64)
    return phi.reshape(len(image), side * side, -1)


def test_the_memory_is_the_mean_of_the_descriptor_at_each_position():
    detector, train = cfa(BACKBONE, layers=LAYERS, gamma_d=2), images(4)
    state = remembered(detector, train)
    phi = outputs(state, detector, train)
    assert state.centers.shape == (16, phi.shape[-1])
    np.testing.assert_allclose(state.centers, phi.mean(0), atol=1e-5)


def test_k_means_shrinks_the_memory():
    whole = remembered(cfa(BACKBONE, layers=LAYERS), images(4))
    state = remembered(cfa(BACKBONE, layers=LAYERS, gamma_c=2), images(4))
    points, centers = np.asarray(whole.centers, np.float64), np.asarray(state.centers, np.float64)
    assert len(centers) == 8
    # every centre is the mean of the points that are nearest to it
    nearest = cdist(points, centers).argmin(1)
    assert set(nearest) == set(range(8))
    np.testing.assert_allclose(centers, [points[nearest == k].mean(0) for k in range(8)], atol=1e-5)


def test_loss_and_radius_follow_the_paper():
    options = {"num_neighbors": 2, "num_negatives": 3, "nu": 0.5, "alpha": 0.01, "radius": 0.7, "weight_decay": 0.0}
    detector, test = cfa(BACKBONE, layers=LAYERS, **options, learning_rate=1e-3), images(2, 1)
    state = remembered(detector, images(4))
    phi = outputs(state, detector, test)
    squared = np.sort(cdist(phi.reshape(32, -1), np.asarray(state.centers, np.float64)) ** 2, axis=1)
    near, next_ones = squared[:, :2], squared[:, 2:5]
    attracted, repelled = np.maximum(near - 0.49, 0), np.maximum(0.49 - next_ones - 0.01, 0)
    assert 0 < (repelled > 0).mean() < 1
    phase = detector.phases(None)[1]
    new, info = jax.jit(phase.update)(KEY, state, FROZEN, batch_of(detector, FROZEN, test))
    assert float(info["loss"]) == pytest.approx((attracted.mean() + repelled.mean()) / 0.5, rel=1e-4)
    slope = 2 * 0.7 * ((repelled > 0).mean() - (attracted > 0).mean()) / 0.5
    mu = float(new.trained.optimizer[0].mu["radius"])
    # Adam's first moment is a tenth of the gradient
    assert mu == pytest.approx(0.1 * slope, rel=1e-4)
    assert float(new.trained.variables["params"]["radius"]) == pytest.approx(0.7 - 1e-3 * np.sign(slope), abs=1e-6)
    np.testing.assert_array_equal(new.centers, state.centers)


def test_score_is_the_softmin_of_the_nearest_distances_and_never_nan():
    detector = cfa(BACKBONE, layers=LAYERS, sigma=0.0)
    state, test = remembered(detector, images(4)), images(1, 1)
    phi = outputs(state, detector, test)[0]
    # a centre at a feature of the image: where |x|^2 + |c|^2 - 2 x c falls below 0, the authors' square root is NaN
    state = Adapting(state.trained, jnp.asarray(np.concatenate([phi[:1], np.asarray(state.centers)]), jnp.float32))
    distance = np.sort(cdist(phi, np.asarray(state.centers, np.float64)), axis=1)[:, :3]
    score = np.exp(-distance[:, 0]) / np.exp(-distance).sum(1) * distance[:, 0]
    found = predict(detector, state, FROZEN, test)
    assert np.all(np.isfinite(found.map)) and found.map[0, 0, 0] < 1e-5
    # the centre of each block of 8 x 8 pixels lies between four of them
    assert float(found.score[0]) == pytest.approx(score.max(), rel=0.2)
    corners = np.asarray(found.map)[0][[0, 0, -1, -1], [0, -1, 0, -1]]
    np.testing.assert_allclose(corners, score.reshape(4, 4)[[0, 0, -1, -1], [0, -1, 0, -1]], atol=1e-5)


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="gamma_c must be at least 1"):
        cfa(BACKBONE, layers=LAYERS, gamma_c=0)
    with pytest.raises(UserError, match="cfa needs 6 centres, and has 4"):
        detector = cfa(BACKBONE, layers=LAYERS, gamma_c=4)
        detector.init(KEY, FROZEN, spec_for(detector, FROZEN, 1, (32, 32, 3)))
