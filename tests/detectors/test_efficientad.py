"""EfficientAD: its losses, statistics and quantiles in NumPy; tests/parity has the other codes' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones, losses
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student import efficientad as module
from iadjax.detectors.teacher_student.efficientad import efficientad
from iadjax.errors import UserError
from iadjax.nn.pdn import PDN, Autoencoder
from tests import torch_parity as parity
from tests.direct import batch_of, phases, predict, spec_for
from tests.parity import harness

pytestmark = pytest.mark.usefixtures("plain_convolutions")


def built(name="pdn_small", size=128, validation=3, **options):
    backbone = backbones.backbone(name)
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = efficientad(backbone, **{"steps": 10, **options})
    spec = spec_for(detector, frozen, 4, (size, size, 3), num_validation=validation, steps_per_epoch=2)
    return detector, frozen, jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec)


def test_a_part_of_the_channels_is_a_part_of_the_output():
    x = np.random.default_rng(0).normal(size=(2, 41, 48, 3)).astype(np.float32)
    network = PDN("pdn_small", 12)
    variables = jax.jit(network.init)(jax.random.key(0), x)
    parity.assert_close(network.apply(variables, x, (4, 9)), network.apply(variables, x)[..., 4:9], 1e-5)


def test_a_missing_tensor_is_named():
    backbone = backbones.backbone("pdn_small")
    frozen = {"backbone": jax.eval_shape(lambda: backbone.init(jax.random.key(0), backbone.layers))}
    state = harness.empty_state(efficientad(backbone), frozen, 128)
    with pytest.raises(UserError, match="missing a tensor for autoencoder/decoder_deconv1/bias"):
        from_torch("efficientad", {}, state)


def test_hard_mean_is_that_of_the_quantile():
    rng = np.random.default_rng(0)
    distance = rng.random((3, 7, 9, 5)).astype(np.float32)
    distance[1] = np.round(distance[1] * 4)
    for q in (0.5, 0.9, 0.999):
        truth = [row[row >= np.quantile(row, q)].mean() for row in distance.astype(np.float64)]
        np.testing.assert_allclose(losses.hard_mean(jnp.asarray(distance), q), truth, rtol=1e-5)


def test_jitter_by_hand():
    image = np.random.default_rng(0).random((64, 4, 4, 3)).astype(np.float32)
    out = np.asarray(module._jitter(jax.random.key(0), jax.random.key(1), jnp.asarray(image)))
    kinds = np.asarray(jax.random.randint(jax.random.key(0), (64,), 0, 3))
    factors = np.asarray(jax.random.uniform(jax.random.key(1), (64, 1, 1, 1), minval=0.8, maxval=1.2)).ravel()
    assert set(kinds) == {0, 1, 2}
    for x, y, kind, f in zip(image, out, kinds, factors, strict=True):
        grey = x @ np.array([0.299, 0.587, 0.114])
        base = (0, grey.mean(), grey[..., None])[kind]
        np.testing.assert_allclose(y, np.clip(f * x + (1 - f) * base, 0, 1), atol=1e-5)


def padded_batch(detector, frozen, images, size=4, padding=0.3):
    count = len(images)
    padded = np.concatenate([images, np.full((size - count, *images.shape[1:]), padding, np.float32)])
    extra = {"penalty": np.random.default_rng(9).random(padded.shape, np.float32)}
    return batch_of(detector, frozen, padded, valid=np.arange(size) < count, extra=extra)


def test_statistics_and_calibration_are_those_of_the_definition():
    detector, frozen, state = built(validation=3)
    images = np.random.default_rng(0).random((3, 128, 128, 3), np.float32)
    key = jax.random.key(0)
    for phase in phases(detector)[:2]:
        # one image, then two and a padded row
        for rows in (images[:1], images[1:]):
            state, _ = jax.jit(phase.update)(key, state, frozen, padded_batch(detector, frozen, rows))
        state = phase.finalize(key, state, frozen)
    backbone = backbones.backbone("pdn_small")
    features = np.asarray(parity.features(backbone, frozen["backbone"], images, ("features",))[0], np.float64)
    np.testing.assert_allclose(state.mean, features.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(state.variance, features.var((0, 1, 2)), rtol=1e-4)
    params = state.trained.variables["params"]
    normal = (images - np.array([0.485, 0.456, 0.406], np.float32)) / np.array([0.229, 0.224, 0.225], np.float32)
    student = np.asarray(PDN("pdn_small", 768).apply({"params": params["student"]}, normal), np.float64)
    restored = np.asarray(Autoencoder().apply({"params": params["autoencoder"]}, normal), np.float64)
    taught = (features - features.mean((0, 1, 2))) / features.std((0, 1, 2))
    local = ((taught - student[..., :384]) ** 2).mean(-1)
    whole = ((restored - student[..., 384:]) ** 2).mean(-1)
    phase = phases(detector)[3]
    for rows in (images[:2], images[2:]):
        state, _ = jax.jit(phase.update)(key, state, frozen, padded_batch(detector, frozen, rows))
    state = phase.finalize(key, state, frozen)
    truth = [[np.quantile(maps, q) for q in (0.9, 0.995)] for maps in (local, whole)]
    np.testing.assert_allclose(state.quantiles, truth, rtol=1e-3)
    scaled = [0.1 * (maps - a) / (b - a) for maps, (a, b) in zip((local, whole), truth, strict=True)]
    combined = np.pad((scaled[0] + scaled[1]) / 2, ((0, 0), (4, 4), (4, 4)))
    place = np.clip((np.arange(128) + 0.5) / 4 - 0.5, 0, 31)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(32)))
    expected = np.einsum("ai,bij,cj->bac", weights, combined, weights)
    prediction = predict(detector, state, frozen, images)
    np.testing.assert_allclose(prediction.map, expected, atol=2e-3 * np.abs(expected).max())
    np.testing.assert_allclose(prediction.score, prediction.map.max((1, 2)))


@pytest.mark.slow
def test_training_lowers_the_loss_and_ignores_padded_rows():
    detector, frozen, state = built(learning_rate=1e-3)
    state = state._replace(variance=jnp.ones(384))
    images = np.random.default_rng(0).random((2, 128, 128, 3), np.float32)
    update = jax.jit(phases(detector)[2].update)
    batch, other = (padded_batch(detector, frozen, images, 3, padding) for padding in (0.3, 0.9))
    key = jax.random.key(0)
    (one, first), (two, _) = update(key, state, frozen, batch), update(key, state, frozen, other)
    for a, b in zip(jax.tree.leaves(one.trained), jax.tree.leaves(two.trained), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for _ in range(6):
        state, info = update(key, state, frozen, batch)
    assert info["loss"] < 0.9 * first["loss"]
    np.testing.assert_allclose(info["loss"], info["loss_st"] + info["loss_ae"] + info["loss_stae"], rtol=1e-5)


def test_penalty_image_is_a_crop_and_sometimes_grey():
    detector, _, _ = built()
    augment = phases(detector)[2].augment
    image = np.zeros((64, 96, 3), np.float32)
    made = [augment(np.random.default_rng(i), image, None)["penalty"] for i in range(40)]
    assert all(each.shape == image.shape and each.dtype == np.float32 for each in made)
    grey = sum(np.ptp(each, axis=-1).max() < 1e-6 for each in made)
    assert 4 <= grey <= 22


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="pdn_small or pdn_medium, not filter_bank"):
        efficientad(backbones.backbone("filter_bank"))
    with pytest.raises(UserError, match="multiples of 64"):
        built(size=160)
    with pytest.raises(UserError, match="quantile_b must be in"):
        built(quantile_a=0.99, quantile_b=0.9)
