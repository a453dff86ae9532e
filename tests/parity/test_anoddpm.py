"""AnoDDPM: the authors' network, noise, loss and restored images; tests/synthesis/test_simplex.py has their simplex noise."""

import jax
import jax.numpy as jnp
import pytest

from iadjax.cpu.dispatch import plain
from iadjax.detectors.diffusion import anoddpm as module
from iadjax.detectors.pytorch import from_torch
from iadjax.nn import diffusion
from iadjax.nn.adm import AdmUNet
from tests.parity import harness
from tests.parity.harness import Card

SMALL = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (16,), "heads": 2}


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def case():
    card = Card("anoddpm")
    detector = module.anoddpm(**SMALL, noise="gaussian", clip_norm=0.0)
    state = from_torch("anoddpm", card.tensors, harness.empty_state(detector, {}, 32))
    network, x = AdmUNet(**SMALL), jnp.asarray(2 * card["image"] - 1)
    with plain():
        apply = jax.jit(lambda x, t: network.apply({"params": state.network.average}, x, t))
        apply(x, jnp.zeros(2, jnp.int32))
    return card, detector, state, apply, x


def test_schedules():
    card = Card("anoddpm")
    for kind in diffusion.SCHEDULES:
        harness.close(diffusion.noise_schedule(1000, kind).beta[::37], card[f"out/beta_{kind}"], 1e-6, kind)


def test_authors(case):
    card, _, _, apply, x = case
    schedule, t = diffusion.noise_schedule(1000), jnp.asarray(card["input/t"], jnp.int32)
    noise = [nhwc(each) for each in card["input/noise"]]
    card.check("unet", harness.nchw(apply(x, t)))
    x_t = diffusion.noised(schedule, x, t, noise[0])
    card.check("x_t", harness.nchw(x_t), 1e-5)
    estimate = apply(x_t, t)
    card.check("estimate", harness.nchw(estimate))
    start = jnp.clip(diffusion.start_from_noise(schedule, x_t, t, estimate), -1, 1)
    card.check("p_pred_x_0", harness.nchw(start))
    card.check("p_mean", harness.nchw(diffusion.posterior_mean(schedule, start, x_t, t)))
    # an image noised by three steps, and restored
    y = diffusion.noised(schedule, x, jnp.int32(2), noise[1])
    for i, each in zip((2, 1, 0), noise[2:], strict=True):
        y = diffusion.ancestral_step(schedule, y, jnp.int32(i), apply(y, jnp.full(2, i)), each)
    card.check("reconstruction_t3", harness.nchw(y))
    card.check("map", jnp.mean((y - x) ** 2, axis=-1), 1e-3)


def test_loss(case, monkeypatch):
    card, detector, state, *_ = case
    t = jnp.asarray(card["input/t"], jnp.int32)
    monkeypatch.setattr(module, "times_like", lambda key, x, low, high: t)
    monkeypatch.setattr(module, "noise_like", lambda key, x: nhwc(card["input/noise"][0]))
    new, info = harness.update(detector, state, {}, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("anoddpm", harness.gradients(new))
