"""UniAD: its mask, jitter and map by hand; tests/parity has the authors' numbers."""

import jax
import numpy as np
import pytest

from iadjax.detectors.families.schedules import step_decay
from iadjax.detectors.transformer.uniad import uniad
from iadjax.errors import UserError
from iadjax.nn.feature_transformer import Reconstruction, neighbor_mask
from tests import tiny
from tests.direct import batch_of, phases, predict, spec_for


def built(**options):
    backbone = tiny.bank()
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = uniad(
        backbone, **{"stride": 8, "hidden": 8, "heads": 2, "width": 8, "neighbor_size": 3, "epochs": 10, **options}
    )
    return (
        detector,
        frozen,
        jax.jit(detector.init, static_argnums=2)(
            jax.random.key(1), frozen, spec_for(detector, frozen, 4, (64, 64, 3), steps_per_epoch=2)
        ),
    )


def test_mask_by_hand():
    mask = neighbor_mask(1, 5, 3)
    expected = [
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0],
        [0, 0, 1, 1, 1],
        [0, 0, 0, 1, 1],
    ]
    assert np.array_equal(np.isneginf(mask), np.array(expected, bool))
    with pytest.raises(UserError, match="hides the whole"):
        built(stride=32)


def test_score_is_the_maximum_of_the_pooled_map():
    detector, frozen, state = built(pool_size=5)
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    prediction = predict(detector, state, frozen, image)
    maps = np.asarray(prediction.map, np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(maps, (5, 5), (1, 2)).mean((-2, -1))
    np.testing.assert_allclose(prediction.score, windows.max((1, 2)), rtol=1e-5)


def test_jitter_has_the_paper_s_size(monkeypatch):
    # with dropout 0 the loss of a batch differs from that without jitter, and probability 0 switches it off
    image = np.random.default_rng(0).random((2, 64, 64, 3), np.float32)
    seen = {}
    apply = Reconstruction.apply

    def spy(self, variables, tokens, **options):
        jax.debug.callback(lambda x: seen.setdefault("tokens", []).append(np.asarray(x, np.float64)), tokens)
        return apply(self, variables, tokens, **options)

    monkeypatch.setattr(Reconstruction, "apply", spy)
    for probability in (0.0, 1.0):
        detector, frozen, state = built(jitter_prob=probability, dropout=0.0, jitter_scale=2.0)
        batch = batch_of(detector, frozen, image)
        jax.jit(phases(detector)[0].update)(jax.random.key(5), state, frozen, batch)
        seen[probability] = np.concatenate(seen.pop("tokens"))
    noise = seen[1.0] - seen[0.0]
    expected = 2.0 * np.linalg.norm(seen[0.0], axis=-1) / noise.shape[-1]
    ratio = np.sqrt(np.mean(noise**2, axis=-1)) / expected
    assert abs(ratio.mean() - 1) < 0.05


def test_rate_drops_once_and_gradients_are_clipped():
    import optax

    detector, _, state = built()
    # the rate is a tenth after 8 of 10 epochs of 2 steps
    schedule = step_decay(1e-4, 0.1, 0.8 * 10 * 2)
    np.testing.assert_allclose([schedule(15.0), schedule(16.0)], [1e-4, 1e-5], rtol=1e-6)
    assert len(state.optimizer) == 2 and isinstance(state.optimizer[0], optax.EmptyState)
    assert phases(detector)[0].epochs == 10


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="even and a multiple of detector.heads"):
        built(hidden=9)
