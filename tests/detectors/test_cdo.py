"""CDO's loss, noise, step and map in NumPy float64; the authors' names of tensors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones, ops
from iadjax.detectors.families.gradient import Trained
from iadjax.detectors.families.student import Student
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.cdo import cdo, discrepancy_loss
from iadjax.errors import UserError
from iadjax.synthesis.white_noise import white_noise_patches
from tests.direct import batch_of, predict, spec_for
from tests.parity.harness import Card
from tests.tiny import pyramid, pyramid_variables

pytestmark = pytest.mark.usefixtures("plain_convolutions")

BACKBONE, FROZEN, LAYERS = pyramid(), {"backbone": pyramid_variables()}, ("layer1", "layer2")
KEY = jax.random.key(0)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def weighted(d, anomalous, gamma):
    """The loss of one level: all normal and all anomalous features of a batch."""
    normal, other = d[~anomalous], d[anomalous]
    w_n = (normal / normal.mean()) ** gamma
    w_a = (other.mean() / other) ** gamma if other.size else other
    return ((w_n * normal).sum() - (w_a * other).sum()) / (w_n.sum() + w_a.sum())


def test_loss_weighs_hard_features_of_both_kinds():
    rng = np.random.default_rng(0)
    d, anomalous = rng.uniform(0.1, 2, (3, 4, 5)), rng.random((3, 4, 5)) < 0.3
    valid = np.array([True, False, True])
    loss = jax.jit(discrepancy_loss, static_argnums=3)
    for gamma in (0.0, 2.0):
        found = loss(jnp.float32(d), anomalous, valid, gamma)
        np.testing.assert_allclose(found, weighted(d[valid], anomalous[valid], gamma), rtol=1e-5)
    # images without noise
    found = loss(jnp.float32(d), np.zeros_like(anomalous), valid, 2.0)
    np.testing.assert_allclose(found, weighted(d[valid], np.zeros_like(anomalous[valid]), 2.0), rtol=1e-5)
    # weights have no gradient, and equal features no infinite one
    gradient = jax.grad(lambda d: discrepancy_loss(d, jnp.asarray(anomalous), jnp.ones(3, bool), 2.0))
    found = gradient(jnp.float32(d))
    w = np.where(anomalous, -((d[anomalous].mean() / d) ** 2), (d / d[~anomalous].mean()) ** 2)
    np.testing.assert_allclose(found, w / np.abs(w).sum(), rtol=1e-4)
    assert np.all(np.isfinite(gradient(jnp.zeros((3, 4, 5)))))


def test_noise_is_in_rectangles_and_not_on_background():
    image = np.full((80, 160, 3), 0.5, np.float32)
    image[:, 40:] = 0.05
    fractions, numbers = [], 0
    for seed in range(60):
        augmented, mask = white_noise_patches(np.random.default_rng(seed), image, 1)
        assert augmented.dtype == np.float32 and mask.dtype == np.uint8
        assert np.array_equal(augmented[mask == 0], image[mask == 0])
        if mask.any():
            rows, columns = np.nonzero(mask)
            box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            # half of a side is a fortieth to less than a tenth of the image's
            assert box.all() and 2 * 2 <= box.shape[0] <= 2 * 7 and 2 * 4 <= box.shape[1] <= 2 * 15
            fractions.append(mask.mean())
            assert np.std(augmented[mask == 1]) > 0.2
        # the dark part, and what lies within nine pixels of it
        _, kept = white_noise_patches(np.random.default_rng(seed), image, 1, skip_background=True)
        if kept.any():
            numbers += 1
            assert np.nonzero(kept)[1].mean() < 31
    assert 20 < len(fractions) < 40 and 20 < numbers < 40 and np.ptp(fractions) > 0.01
    _, mask = white_noise_patches(np.random.default_rng(0), image, 0)
    assert not mask.any()


def test_a_step_and_the_map_follow_the_formulas():
    detector = cdo(BACKBONE, layers=LAYERS, width=4, sigma=0.0)
    spec = spec_for(detector, FROZEN, 2, (64, 64, 3), steps_per_epoch=2)
    state = jax.jit(detector.init, static_argnums=2)(KEY, FROZEN, spec)
    rng = np.random.default_rng(0)
    image, augmented = (rng.random((2, 64, 64, 3), np.float32) for _ in range(2))
    mask = np.zeros((2, 64, 64), np.uint8)
    mask[0, 8:24, 16:48] = 1
    features = jax.jit(lambda image: BACKBONE.features(FROZEN["backbone"], image, LAYERS))
    network = Student((1, 2), (24, 24), (2, 2, 2, 2), False, 64, 4)

    def squared(experts, levels):
        pairs = zip(experts, levels, strict=True)
        grids = ([unit(ops.resize(x, (16, 16), align_corners=True)) for x in pair] for pair in pairs)
        return [((a - b) ** 2).sum(-1) for a, b in grids]

    train = jax.jit(lambda variables: network.apply(variables, augmented, jnp.ones(2, bool), mutable="batch_stats")[0])
    levels = squared(features(augmented), train(state.variables))
    expected = sum(weighted(d, mask[:, ::4, ::4] > 0, 2.0) for d in levels)
    batch = batch_of(detector, FROZEN, image, extra={"augmented": augmented, "mask": mask})
    (phase,) = detector.phases(spec)
    # the loss alone: without gradients there is little to compile
    loss = jax.jit(lambda *given: phase.update(KEY, *given)[1]["loss"])
    np.testing.assert_allclose(loss(state, FROZEN, batch), expected, rtol=1e-4)
    found = predict(detector, state, FROZEN, image)
    maps = sum(squared(features(image), jax.jit(network.apply)(state.variables, image)))
    np.testing.assert_allclose(found.map, ops.anomaly_map(jnp.float32(maps), (64, 64)), rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(found.score, found.map.max((1, 2)))


def test_names_of_the_authors():
    # their apprentice is IKD's student
    theirs = Card("ikd").part("student.")
    backbone = backbones.backbone("hrnet_w18_bilinear")
    shapes = jax.eval_shape(lambda: backbone.init(KEY, ("branch0", "branch1", "branch2")))
    state = from_torch("cdo", {f"model.{name}": tensor for name, tensor in theirs.items()}, Trained(shapes, ()))
    kernel = state.variables["params"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel, theirs["conv1.weight"].transpose(2, 3, 1, 0))


def test_bad_options_are_refused():
    for options, match in (
        ({"gamma": 5.0}, r"gamma must be in \[0, 4\]"),
        ({"max_patches": -1}, "max_patches must be at least"),
    ):
        with pytest.raises(UserError, match=match):
            cdo(BACKBONE, layers=LAYERS, **options)
