"""AnomalyDINO against NumPy, SciPy and scikit-learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from sklearn.decomposition import PCA

from iadjax.detectors.memory_bank.anomalydino import anomalydino, foreground, rotate
from iadjax.errors import UserError
from tests import tiny
from tests import torch_parity as parity
from tests.direct import batch_of, phases, predict, spec_for


def fitted(images, **options):
    backbone = tiny.bank()
    detector = anomalydino(backbone, layers=("layer2",), **options)
    state = jax.jit(detector.init, static_argnums=2)(
        jax.random.key(0), {"backbone": {}}, spec_for(detector, {"backbone": {}}, len(images), images.shape[1:])
    )
    batch = batch_of(detector, {"backbone": {}}, images)
    state, _ = jax.jit(phases(detector)[0].update)(jax.random.key(1), state, {"backbone": {}}, batch)
    return backbone, detector, phases(detector)[0].finalize(jax.random.key(2), state, {"backbone": {}})


def units(backbone, images):
    x = np.asarray(parity.features(backbone, {}, images, ("layer2",))[0], np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.mark.parametrize("rotations", [1, 4])
def test_scores_and_maps_follow_the_paper(rotations):
    rng = np.random.default_rng(0)
    images, tests = rng.random((2, 64, 64, 3), np.float32), rng.random((3, 64, 64, 3), np.float32)
    backbone, detector, state = fitted(images, rotations=rotations, top=0.05, sigma=0.0)
    turned = [np.asarray(rotate(jnp.asarray(images), 360 * i / rotations)) for i in range(rotations)]
    bank = np.concatenate([units(backbone, each).reshape(-1, 18) for each in turned])
    assert state.features.shape == bank.shape
    queries = units(backbone, tests)
    distance = 1 - (queries.reshape(-1, 18) @ bank.T).max(1).reshape(3, 8, 8)
    score = np.sort(distance.reshape(3, -1), axis=1)[:, -int(0.05 * 64) :].mean(1)
    prediction = predict(detector, state, {"backbone": {}}, tests)
    parity.assert_close(prediction.score, score, 1e-4)
    place = np.clip((np.arange(64) + 0.5) / 8 - 0.5, 0, 7)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(8)))
    parity.assert_close(prediction.map, np.einsum("ai,bij,cj->bac", weights, distance, weights), 1e-4)


def test_rotation_is_that_of_scipy():
    image = np.random.default_rng(0).random((1, 17, 24, 2)).astype(np.float32)
    for degrees in (45.0, 90.0, 135.0, 200.0):
        angle = np.deg2rad(degrees)
        matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        centre = np.array([17 / 2, 24 / 2])
        for c in range(2):
            truth = ndimage.affine_transform(
                image[0, ..., c].astype(np.float64), matrix, centre - matrix @ centre, order=1, mode="mirror"
            )
            np.testing.assert_allclose(np.asarray(rotate(jnp.asarray(image), degrees))[0, ..., c], truth, atol=1e-4)
    assert rotate(image, 360.0) is image


def blob(sign=1.0, seed=0):
    """Tokens whose first component is large on a disc in the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:16, :16] - 7.5
    disc = np.hypot(y, x) < 5
    direction = rng.normal(size=12)
    tokens = 40 * sign * disc[..., None] * direction / np.linalg.norm(direction) + rng.normal(size=(16, 16, 12))
    return tokens[None].astype(np.float32), disc


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_foreground_is_the_thresholded_component_of_scikit_learn(sign):
    tokens, disc = blob(sign)
    component = PCA(1).fit_transform(tokens.reshape(-1, 12).astype(np.float64)).reshape(16, 16)
    mask = component > 10
    if mask[3:12, 3:12].mean() <= 0.35:
        mask = -component > 10
    # OpenCV takes the authors' vector of patches for an image of one column
    square, column = np.ones((3, 3)), mask.reshape(-1, 1)
    truth = ndimage.binary_dilation(column, square)
    truth = ndimage.binary_erosion(ndimage.binary_dilation(truth, square), square, border_value=1).reshape(16, 16)
    found = np.asarray(foreground(jnp.asarray(tokens), 10.0))[0]
    assert np.array_equal(found, truth)
    assert found[disc].all() and not found[0].any()


def test_masked_patches_score_zero_and_leave_the_bank():
    rng = np.random.default_rng(0)
    images = np.full((2, 192, 192, 3), 0.5, np.float32) + 0.01 * rng.random((2, 192, 192, 3), np.float32)
    images[:, 50:142, 50:142] = rng.random((2, 92, 92, 3))
    options = {"masking": True, "mask_threshold": 0.5, "rotations": 1, "sigma": 0.0}
    backbone, detector, state = fitted(images, mask_references=True, **options)
    x = parity.features(backbone, {}, images, ("layer2",))[0]
    mask = np.asarray(foreground(x, 0.5))
    assert 0 < mask.sum() < mask.size and len(state.features) == mask.sum()
    other = images[:1, ::-1].copy()
    shown = np.asarray(foreground(parity.features(backbone, {}, other, ("layer2",))[0], 0.5))[0]
    prediction = np.asarray(predict(detector, state, {"backbone": {}}, other).map)[0]
    # a pixel in the middle of four masked patches is made of zeros alone
    corner = ~(shown[:-1, :-1] | shown[1:, :-1] | shown[:-1, 1:] | shown[1:, 1:])
    assert corner.any() and not prediction[8::8, 8::8][corner].any()
    with pytest.raises(UserError, match="hides every patch"):
        fitted(images, mask_references=True, **{**options, "mask_threshold": 1e6})


@pytest.mark.parametrize("leave_out", [False, True])
def test_the_mean_of_the_lowest_distances_without_the_own_image(leave_out):
    rng = np.random.default_rng(0)
    images = rng.random((4, 32, 32, 3), np.float32)
    backbone, detector, state = fitted(images, rotations=1, nearest=0.1, leave_out=leave_out, sigma=0.0, top=1.0)
    tokens = units(backbone, images).reshape(4, 16, 18)
    batch = batch_of(detector, {"backbone": {}}, images[[2, 3]])._replace(index=np.array([2, -1], np.int32))
    found = jax.jit(detector.predict)(state, {"backbone": {}}, batch)
    for row, (image, others) in enumerate(((2, [0, 1, 3] if leave_out else [0, 1, 2, 3]), (3, [0, 1, 2, 3]))):
        distance = np.sort(1 - tokens[image] @ tokens[others].reshape(-1, 18).T, axis=1)
        # the authors: below the k-th value, k = a tenth of the patches
        kept = int(0.1 * distance.shape[1]) - 1
        np.testing.assert_allclose(found.score[row], distance[:, :kept].mean(), atol=1e-5)


def test_one_image_alone_leaves_nothing_to_compare():
    with pytest.raises(UserError, match="compares images with others and got one"):
        fitted(np.zeros((1, 32, 32, 3), np.float32), rotations=1, leave_out=True)


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="rotations must be at least 1"):
        anomalydino(tiny.bank(), layers=("layer1",), rotations=0)
    with pytest.raises(UserError, match="has no layer 'norm'"):
        anomalydino(tiny.bank())
