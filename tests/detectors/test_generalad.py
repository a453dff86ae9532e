"""GeneralAD: its draws, its losses and its rate by hand; tests/parity has anomalib's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.one_class import generalad as module
from iadjax.detectors.one_class.generalad import Discriminator, draw_patches, generalad, shuffled
from iadjax.errors import UserError
from tests import tiny
from tests.direct import batch_of, phases, predict, spec_for

SMALL = {"layers": ("layer3",), "heads": 2, "hidden": 8, "dropout": 0.0, "top_k": 3, "sigma": 0.0}
IMAGE = np.random.default_rng(0).random((3, 48, 48, 3), np.float32)


def built(**options):
    backbone = tiny.bank()
    detector = generalad(backbone, **{**SMALL, **options})
    frozen = {"backbone": {}}
    spec = spec_for(detector, frozen, 4, IMAGE.shape[1:], steps_per_epoch=2)
    return detector, frozen, jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec)


def test_as_many_patches_are_drawn_as_a_number_says():
    chosen = np.asarray(draw_patches(jax.random.key(0), (4000, 2, 3, 5)))
    counts = np.bincount(chosen.sum(axis=1), minlength=7)
    # between one and all of six, each number as often as the others
    assert counts[0] == 0 and np.all(np.abs(counts[1:] - 4000 / 6) < 120)
    np.testing.assert_allclose(chosen.mean(axis=0), 3.5 / 6, atol=0.04)


def test_chosen_patches_change_places_and_others_stay():
    x = np.arange(2 * 6 * 4, dtype=np.float32).reshape(2, 2, 3, 4)
    chosen = np.array([[1, 0, 1, 1, 0, 1], [0, 0, 0, 1, 0, 0]], bool)
    flat, seen = x.reshape(2, 6, 4), set()
    for seed in range(200):
        moved = np.asarray(shuffled(jax.random.key(seed), jnp.asarray(x), jnp.asarray(chosen))).reshape(2, 6, 4)
        np.testing.assert_array_equal(moved[~chosen], flat[~chosen])
        np.testing.assert_array_equal(moved[1], flat[1])
        order = [int(np.flatnonzero((flat[0] == row).all(axis=1))[0]) for row in moved[0][chosen[0]]]
        assert sorted(order) == [0, 2, 3, 5]
        seen.add(tuple(order))
    # all 24 orders
    assert len(seen) == 24


def test_losses_are_of_all_patches_and_of_both_kinds_apart(monkeypatch):
    detector, frozen, state = built(shuffle=True)
    rng = np.random.default_rng(0)
    chosen = jnp.asarray(rng.random((3, 9)) < 0.5)
    noises = [jnp.asarray(rng.normal(size=(3, 3, 3, 18)), jnp.float32) for _ in range(2)]
    queue = iter(noises)
    monkeypatch.setattr(module, "draw_noise", lambda key, shape: next(queue))
    monkeypatch.setattr(module, "draw_patches", lambda key, shape: chosen)
    monkeypatch.setattr(module, "shuffled", lambda key, features, chosen: features[:, ::-1])
    valid = np.array([True, False, True])
    batch = batch_of(detector, frozen, IMAGE, valid=valid)
    _, info = jax.jit(phases(detector)[0].update)(jax.random.key(0), state, frozen, batch)
    x, real = np.asarray(batch.features), np.asarray(chosen)[valid]

    def logits(features):
        found = Discriminator(1, 2, 8, 0.0).apply(state.variables, jnp.asarray(features, jnp.float32))
        return np.asarray(found, np.float64)[valid]

    def apart(found):
        return np.mean(np.log1p(np.exp(-found[real]))) + np.mean(np.log1p(np.exp(found[~real])))

    some = np.where(np.asarray(chosen).reshape(3, 3, 3, 1), x + 0.25 * noises[1], x)
    expected = {
        "loss_normal": np.mean(np.log1p(np.exp(logits(x)))),
        "loss_noised": np.mean(np.log1p(np.exp(-logits(x + 0.25 * noises[0])))),
        "loss_some": apart(logits(some)),
        "loss_shuffled": apart(logits(x[:, ::-1])),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(info[name], value, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(info["loss"], sum(expected.values()), rtol=1e-4)


def test_score_is_the_mean_of_the_largest_logits_and_the_map_is_smoothed():
    detector, frozen, state = built()
    features = jax.jit(detector.embed)(frozen, IMAGE)
    logits = np.asarray(Discriminator(1, 2, 8, 0.0).apply(state.variables, features))
    found = predict(detector, state, frozen, IMAGE)
    np.testing.assert_allclose(found.score, np.sort(logits, axis=1)[:, -3:].mean(axis=1), rtol=1e-4, atol=1e-5)
    smooth = predict(built(sigma=8.0, radius=10)[0], state, frozen, IMAGE)
    assert np.all(np.ptp(smooth.map, axis=(1, 2)) < np.ptp(found.map, axis=(1, 2)))
    np.testing.assert_allclose(smooth.score, found.score, rtol=1e-5)


def test_a_feature_width_that_the_heads_do_not_divide_is_refused():
    with pytest.raises(UserError, match="detector.heads=4 does not divide the 18 channels"):
        built(heads=4)
