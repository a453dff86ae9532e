"""DiffusionAD: the authors' code. The card has images in [-1, 1]; their training code has [0, 1]."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.diffusion import diffusionad as module
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

SMALL = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (16,), "heads": 2, "segment_width": 8}


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def case():
    card = Card("diffusionad")
    detector = module.diffusionad(**SMALL, centred=True)
    return card, detector, from_torch("diffusionad", card.tensors, harness.empty_state(detector, {}, 32))


def test_maps(case, monkeypatch):
    """The card's noise differs from image to image."""
    card, detector, state = case
    noises, draw = iter(nhwc(each) for each in card["input/noise"][:2]), jax.random.normal

    def normal(key, shape, *rest):
        return next(noises) if shape == (1, 32, 32, 3) else draw(key, shape, *rest)

    monkeypatch.setattr(jax.random, "normal", normal)
    found = harness.predict(detector, state, {}, card["image"])
    card.check("map", np.asarray(found.map)[:, None])
    card.check("score", found.score)


@pytest.mark.slow  # half a minute of compilation
def test_losses(case, monkeypatch):
    card, detector, state = case
    times = iter([jnp.asarray([30, 250]), jnp.asarray([500, 900])])
    noises = iter(nhwc(each) for each in card["input/noise"][2:])
    monkeypatch.setattr(module, "times_like", lambda key, x, low, high: next(times))
    monkeypatch.setattr(module, "noise_like", lambda key, x: next(noises))
    mask = card["input/mask"][:, 0].astype(np.uint8)
    batch = harness.batch_of(card["image"], augmented=card["image"], mask=mask)
    new, info = harness.update(detector, state, {}, batch)
    for name in ("loss_noise", "loss_focal", "loss_smooth_l1", "loss"):
        harness.close(info[name], card[name], what=name)
    card.check_gradients("diffusionad", harness.gradients(new))
