"""Dinomaly: linear attention and dropout by hand, the fraction of easy positions over the steps; tests/parity has the authors'
numbers."""

import jax
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.vit import SPECS, Spec
from iadjax.detectors.transformer import dinomaly as module
from iadjax.detectors.transformer.dinomaly import dinomaly
from iadjax.errors import UserError
from iadjax.nn.transformer import LinearAttention, Mlp
from tests import tiny
from tests.direct import batch_of, phases, spec_for

SMALL = {"layers": ("layer2", "layer3"), "depth": 2, "heads": 2, "map_size": 0}
IMAGE = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)


def built(**options):
    name = options.pop("backbone", None)
    backbone = backbones.backbone(name) if name else tiny.bank()
    detector = dinomaly(backbone, **{**SMALL, **options})
    names = [f"{layer}{kind}" for layer in {**SMALL, **options}["layers"] for kind in ("", ".class", ".registers")]
    names = tuple(name for name in names if name in backbone.layers)
    frozen = {"backbone": jax.jit(backbone.init, static_argnums=1)(jax.random.key(0), names)}
    spec = spec_for(detector, frozen, 4, IMAGE.shape[1:])
    return detector, frozen, jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec)


def test_linear_attention_is_a_mean_weighed_by_positive_products():
    x = np.random.default_rng(0).normal(size=(1, 5, 4))
    attention = LinearAttention(heads=2)
    variables = attention.init(jax.random.key(0), x.astype(np.float32))
    variables = jax.tree.map(lambda leaf: 100 * leaf, variables)
    qkv, proj = (np.asarray(variables["params"][name]["kernel"], np.float64) for name in ("qkv", "proj"))
    q, k, v = ((x[0] @ qkv)[:, 4 * i : 4 * i + 4] for i in range(3))
    positive = lambda y: np.where(y > 0, y + 1, np.exp(y))  # noqa: E731
    rows = np.zeros((5, 4))
    for head in (slice(0, 2), slice(2, 4)):
        weights = positive(q[:, head]) @ positive(k[:, head]).T
        rows[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, head]
    np.testing.assert_allclose(attention.apply(variables, x.astype(np.float32))[0], rows @ proj, rtol=1e-4)


def test_the_bottleneck_drops_numbers_before_its_first_layer():
    x = np.ones((1, 400, 8), np.float32)
    inputs = {}
    for noisy in (False, True):
        mlp = Mlp(0.5, noisy)
        variables = mlp.init(jax.random.key(0), x)
        # the hidden numbers of equal tokens differ where the input was noised
        _, seen = mlp.apply(variables, x, True, rngs={"dropout": jax.random.key(1)}, capture_intermediates=True)
        inputs[noisy] = np.asarray(seen["intermediates"]["fc1"]["__call__"][0][0])
    assert np.all(inputs[False] == inputs[False][0]) and len(np.unique(inputs[True], axis=0)) > 50
    # training mode alone is noisy
    np.testing.assert_array_equal(mlp.apply(variables, x)[0, 0], mlp.apply(variables, x)[0, 1])


def test_the_fraction_of_easy_positions_rises_with_the_steps(monkeypatch):
    seen = []
    hardest = module.hardest

    def spy(distance, valid, fraction):
        jax.debug.callback(lambda x: seen.append(float(x)), fraction)
        return hardest(distance, valid, fraction)

    monkeypatch.setattr(module, "hardest", spy)
    detector, frozen, state = built(easy=0.8, easy_steps=2, groups=1)
    batch = batch_of(detector, frozen, IMAGE)
    update = jax.jit(phases(detector)[0].update)
    for i in range(4):
        state, info = update(jax.random.key(i), state, frozen, batch)
        assert np.isfinite(info["loss"])
    jax.effects_barrier()
    np.testing.assert_allclose(seen, [1.0, 0.6, 0.2, 0.2], rtol=1e-5)
    assert phases(detector)[0].steps == 10000


def test_the_first_step_has_the_rate_zero_and_the_others_lower_the_loss():
    detector, frozen, state = built(dropout=0.0, warmup=2, steps=50, clip_norm=1.0)
    batch = batch_of(detector, frozen, IMAGE)
    update = jax.jit(phases(detector)[0].update)
    first, info = update(jax.random.key(0), state, frozen, batch)
    for a, b in zip(jax.tree.leaves(first.variables), jax.tree.leaves(state.variables), strict=True):
        np.testing.assert_array_equal(a, b)
    state, losses = first, [info["loss"]]
    for _ in range(20):
        state, info = update(jax.random.key(0), state, frozen, batch)
        losses.append(info["loss"])
    # weights of 0.01 restore nothing, so the distance is about 1
    assert abs(losses[0] - 1) < 0.5 and losses[-1] < 0.7 * losses[0]


def test_special_tokens_and_recentering_change_what_a_vit_gives(monkeypatch):
    spec = Spec(patch=8, dim=16, depth=2, heads=2, grid=4, registers=2, distilled=False, layer_scale=True, hub="")
    monkeypatch.setitem(SPECS, "tiny", spec)
    found = {}
    for name, options in (("with", {}), ("without", {"special_tokens": False}), ("recentered", {"recenter": True})):
        detector, frozen, _ = built(backbone="tiny", layers=("block1", "block2"), **options)
        features = found[name] = jax.jit(detector.embed)(frozen, IMAGE)
        assert (features.special is None) == (name != "with") and features.groups[0].shape == (2, 4, 4, 16)
    assert found["with"].special.shape == (2, 3, 16)
    np.testing.assert_array_equal(found["with"].groups[1], found["without"].groups[1])
    # the class token is the same at all positions
    moved = np.asarray(found["without"].groups[1] - found["recentered"].groups[1])
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:, :1, :1], moved.shape), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"groups": 3}, "detector.groups must divide the number of detector.layers and detector.depth; got 3, 2 and 2"),
        ({"depth": 3}, "got 2, 2 and 3"),
        ({"heads": 5}, "detector.heads=5 does not divide the 18 channels"),
        ({"recenter": True}, "tiny_bank has none; switch it off"),
        ({"easy": 1.0}, "detector.easy must be in"),
        ({"taps": 4}, "detector.taps must be a positive odd number"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        built(**options)
