"""FoundAD: what the projector sees, its residuals, and the score, by hand; tests/parity has anomalib's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.transformer.foundad import Projector, foundad
from iadjax.errors import UserError
from tests import tiny
from tests.direct import batch_of, phases, predict, spec_for

SMALL = {"layers": ("layer3",), "width": 8, "depth": 2, "heads": 2, "top_k": 3}
IMAGE = np.random.default_rng(0).random((2, 48, 48, 3), np.float32)
PASTED = np.random.default_rng(1).random((2, 48, 48, 3), np.float32)


def built(**options):
    backbone = tiny.bank()
    detector = foundad(backbone, **{**SMALL, **options})
    frozen = {"backbone": {}}
    spec = spec_for(detector, frozen, 4, IMAGE.shape[1:])
    return detector, frozen, jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec)


@pytest.mark.parametrize(("paste", "seen"), [(0.0, IMAGE), (1.0, PASTED)])
def test_the_target_is_the_image_and_the_projector_may_see_pasted_patches(paste, seen):
    detector, frozen, state = built(paste=paste, dropout=0.0)
    batch = batch_of(detector, frozen, IMAGE, extra={"varied": jnp.asarray(IMAGE), "pasted": jnp.asarray(PASTED)})
    _, info = jax.jit(phases(detector)[0].update)(jax.random.key(0), state, frozen, batch)
    target, other = (np.asarray(jax.jit(detector.embed)(frozen, each), np.float64) for each in (IMAGE, seen))
    projected = Projector(8, 2, 2, False, 0.0).apply(state.variables, other.astype(np.float32))
    np.testing.assert_allclose(info["loss"], np.mean((projected - target) ** 2), rtol=1e-4)


def test_the_embedded_input_is_added_after_every_block():
    x = np.random.default_rng(0).normal(size=(1, 2, 2, 6)).astype(np.float32)
    projector = Projector(4, 3, 1, True, 0.0)
    variables = projector.init(jax.random.key(0), x)
    # blocks that add nothing: the embedded input comes once and then once for each block
    blocks = {name: jax.tree.map(jnp.zeros_like, each) for name, each in variables["params"].items() if "blocks" in name}
    variables = {**variables, "params": {**variables["params"], **blocks}}
    w = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    embedded = x.reshape(4, 6) @ w["predictor_embed"]["kernel"] + np.asarray(variables["positions"]["predictor_pos_embed"])[0]
    y = 4 * embedded
    y = (y - y.mean(axis=1, keepdims=True)) / np.sqrt(y.var(axis=1, keepdims=True) + 1e-6)
    expected = (y @ w["predictor_proj"]["kernel"]).reshape(x.shape)
    np.testing.assert_allclose(projector.apply(variables, x), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("unit", [False, True])
def test_score_is_the_mean_of_the_largest_errors(unit):
    detector, frozen, state = built(unit=unit)
    z = np.asarray(jax.jit(detector.embed)(frozen, IMAGE), np.float64)
    projected = np.asarray(Projector(8, 2, 2, False, 0.0).apply(state.variables, z.astype(np.float32)), np.float64)
    if unit:
        np.testing.assert_allclose(np.linalg.norm(z, axis=-1), 1, rtol=1e-5)
        projected /= np.linalg.norm(projected, axis=-1, keepdims=True)
    errors = np.sort(np.mean((projected - z) ** 2, axis=-1).reshape(2, -1))
    found = predict(detector, state, frozen, IMAGE)
    np.testing.assert_allclose(found.score, errors[:, -3:].mean(axis=1), rtol=1e-4)
    assert found.map.shape == (2, 48, 48) and np.all(found.map.max((1, 2)) <= errors[:, -1] * 1.001)


def test_augmentation_gives_the_varied_image_and_the_pasted_one():
    detector, _, _ = built(vary=False)
    augment = phases(detector)[0].augment
    changed = []
    for seed in range(20):
        made = augment(np.random.default_rng(seed), IMAGE[0], None)
        np.testing.assert_array_equal(made["varied"], IMAGE[0])
        changed.append(np.mean(np.any(made["pasted"] != IMAGE[0], axis=-1)))
    # scars are small, patches cover up to a quarter
    assert min(changed) > 0 and max(changed) <= 0.27 and max(changed) > 0.05


def test_positions_stay_as_they_are_drawn():
    detector, frozen, state = built(positions=True)
    batch = batch_of(detector, frozen, IMAGE, extra={"varied": jnp.asarray(IMAGE), "pasted": jnp.asarray(PASTED)})
    new, _ = jax.jit(phases(detector)[0].update)(jax.random.key(0), state, frozen, batch)
    drawn = np.asarray(state.variables["positions"]["predictor_pos_embed"])
    np.testing.assert_array_equal(new.variables["positions"]["predictor_pos_embed"], drawn)
    assert abs(drawn.std() - 0.02) < 0.005


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="detector.heads must divide detector.width, got 3 and 8"):
        built(heads=3)
