"""CutPaste: views, the Gaussian of patches and of images, maps, refusals; tests/parity has the re-implementation's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.covariance import LedoitWolf

from iadjax import ops
from iadjax.detectors.one_class.cutpaste import cutpaste
from iadjax.errors import UserError
from iadjax.nn.masked_convolution import MaskedBlock
from tests import tiny
from tests.direct import batch_of, predict, spec_for

SIZE = 32


def built(**options):
    backbone = tiny.bank()
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = cutpaste(backbone, layers=("layer1",), head=(4,), steps=2, **options)
    spec = spec_for(detector, frozen, 6, (SIZE, SIZE, 3))
    return detector, frozen, spec, detector.init(jax.random.key(1), frozen, spec)


def test_a_block_follows_the_last_level_and_adds_its_loss():
    detector, frozen, spec, state = built(block="ssmctb", block_weight=2.0)
    images = np.random.default_rng(0).random((2, SIZE, SIZE, 3), np.float32)
    batch = batch_of(detector, frozen, images, extra={"views": np.stack([images] * 3, axis=1)})
    alone = cutpaste(tiny.bank(), layers=("layer1",), head=(4,), steps=2, block="ssmctb", block_weight=0.0)
    (level,) = tiny.bank().features(frozen["backbone"], images, ("layer1",))

    def program(state, batch, level):
        own = MaskedBlock("ssmctb").apply({"params": state.variables["params"]["block"]}, level)
        both = [each.phases(spec)[0].update(jax.random.key(0), state, frozen, batch)[1]["loss"] for each in (detector, alone)]
        return *both, jnp.mean((own - level) ** 2)

    loss, plain, own = jax.jit(program)(state, batch, level)
    np.testing.assert_allclose(loss - plain, 2 * own, rtol=1e-3)


def test_a_view_of_each_class():
    image = np.random.default_rng(0).random((64, 64, 3), np.float32)
    for task, classes in (("normal", 2), ("scar", 2), ("3way", 3)):
        detector, _, spec, _ = built(task=task, jitter=0.0)
        views = detector.phases(spec)[0].augment(np.random.default_rng(1), image, None)["views"]
        assert views.shape == (classes, 64, 64, 3) and np.array_equal(views[0], image)
        changed = [(np.any(view != image, axis=-1)).mean() for view in views[1:]]
        # a scar covers at most 16 x 25 pixels, CutPaste 2 to 15 % of the image
        limits = {"normal": [0.16], "scar": [0.11], "3way": [0.16, 0.11]}[task]
        assert all(0 < part <= limit for part, limit in zip(changed, limits, strict=True))
    detector, _, spec, _ = built(patch=16)
    assert detector.phases(spec)[0].augment(np.random.default_rng(1), image, None)["views"].shape == (3, 16, 16, 3)


@pytest.mark.parametrize("patch", [0, 16])
def test_score_is_the_distance_to_the_gaussian_of_normal_patches(patch):
    rng = np.random.default_rng(0)
    images, tests = rng.random((6, SIZE, SIZE, 3), np.float32), rng.random((2, SIZE, SIZE, 3), np.float32)
    detector, frozen, spec, state = built(patch=patch, stride=8, density_stride=16, sigma=4.0)
    learn, fit = detector.phases(spec)
    state = learn.finalize(jax.random.key(0), state, frozen)
    update = jax.jit(fit.update)
    for start in (0, 4):
        valid = np.arange(start, start + 4) < 6
        part = np.concatenate([images, images])[start : start + 4]
        state, _ = update(jax.random.key(0), state, frozen, batch_of(detector, frozen, part, valid=valid))
    state = fit.finalize(jax.random.key(0), state, frozen)
    backbone = tiny.bank()
    features = jax.jit(lambda image: backbone.features(frozen["backbone"], image, ("layer1",))[0])

    def vectors(images, step):
        """`[B, P, D]`, of patch after patch."""
        places = range(0, SIZE - patch + 1, step) if patch else [0]
        side = patch or SIZE
        cut = np.stack([images[:, y : y + side, x : x + side] for y in places for x in places], axis=1)
        x = np.asarray(features(cut.reshape(-1, side, side, 3)), np.float64)
        x = x.mean(axis=(1, 2))
        return (x / np.linalg.norm(x, axis=1, keepdims=True)).reshape(*cut.shape[:2], -1)

    normal = vectors(images, 16)
    gaussian = LedoitWolf().fit(normal.reshape(-1, normal.shape[-1]))
    x = vectors(tests, 8)
    distance = np.sqrt(gaussian.mahalanobis(x.reshape(-1, x.shape[-1]))).reshape(x.shape[:2])
    found = predict(detector, state, frozen, tests)
    np.testing.assert_allclose(found.score, distance.max(axis=1), rtol=1e-2)
    if not patch:
        assert found.map is None
        return
    # the mean of the patches' distances, weighed by Gaussians of the distance to their centres
    centres, pixels = np.array([0, 8, 16]) + 7.5, np.arange(SIZE)
    squared = (pixels[:, None] - centres) ** 2
    weight = np.exp(-0.5 * (squared[:, None, :, None] + squared[None, :, None, :]) / 4.0**2)
    weight /= weight.sum(axis=(2, 3), keepdims=True)
    expected = np.einsum("yxac,bac->byx", weight, distance.reshape(2, 3, 3))
    np.testing.assert_allclose(found.map, expected, rtol=1e-2)


def test_far_pixels_take_the_nearest_patch():
    maps = ops.spread_patches(np.ones((1, 2, 2), np.float32), [np.array([3.5, 5.5])] * 2, (400, 8), 0.5)
    np.testing.assert_allclose(maps, 1, rtol=1e-6)


def test_bad_options_are_refused():
    for options, match in (
        ({"task": "union"}, "task must be one of normal, scar, 3way"),
        ({"patch": 64}, "patch=64 is larger than the images"),
        ({"jitter": 1.0}, "jitter"),
    ):
        with pytest.raises(UserError, match=match):
            built(**options)
