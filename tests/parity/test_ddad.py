"""DDAD: the authors' code. Its map takes the largest distances of the test batch: ours takes those of the training images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from iadjax.cpu.dispatch import plain
from iadjax.detectors.diffusion import ddad as module
from iadjax.detectors.pytorch import from_torch
from iadjax.nn.adm import AdmUNet
from iadjax.nn.diffusion import ddim_coefficients, ddim_step, guided_noise, noise_schedule, noised
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")
# the card's loss of adaptation is of inputs that it does not give; tests/detectors/test_ddad.py has the formula
SMALL = {"width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (16,), "heads": 2, "skip": 100, "weight_decay": 0.0}


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def case():
    card = Card("ddad")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature."), LAYERS)}
    detector = module.ddad(backbone, **SMALL)
    return card, detector, frozen, from_torch("ddad", card.tensors, harness.empty_state(detector, frozen, 32))


def test_maps(case, monkeypatch):
    """The card's noise differs from image to image."""
    card, detector, frozen, state = case
    noise = jnp.stack([nhwc(each) for each in card["input/noise"]])
    # the first one noises the image, the others are those of the steps
    order = jnp.asarray([1, 2, 3, 0])
    monkeypatch.setattr(jax.random, "fold_in", lambda key, i: i)
    monkeypatch.setattr(jax.random, "normal", lambda i, shape: noise[order[i]])
    # the phase of calibration sees the two images, so its largest distances are those of the card's batch
    calibrated, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]), phase=2)
    found = harness.predict(detector, calibrated, frozen, card["image"])
    card.check("map", np.asarray(found.map)[:, None])
    card.check("score", found.score)


@pytest.mark.slow  # tests/parity/test_anoddpm.py has the gradients of the same network
def test_loss(case, monkeypatch):
    card, detector, frozen, state = case
    monkeypatch.setattr(module, "times_like", lambda key, x, low, high: jnp.asarray(card["input/t"], jnp.int32))
    monkeypatch.setattr(module, "noise_like", lambda key, x: nhwc(card["input/noise"][5]))
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    found = {"denoiser": harness.gradients(new.denoiser)}
    card.check_gradients("ddad", found)


def test_steps(case):
    """Images step by step, and features. The card's ResNet sees images that are not normalised."""
    card, _, frozen, state = case
    network, schedule = AdmUNet(32, (1, 2), 1, (16,), 2), noise_schedule(1000)
    noise = [nhwc(each) for each in card["input/noise"]]
    target = jnp.asarray(2 * card["image"] - 1)
    with plain():
        apply = jax.jit(lambda x, t: network.apply(state.denoiser.variables, x, t))
        features = jax.jit(lambda x: backbones.backbone("resnet18").features(frozen["backbone"], x, LAYERS))
        x = noised(schedule, target, jnp.int32(250), noise[0])
        card.check("x_step0", harness.nchw(x), 1e-5)
        times = [200, 100, 0]
        left = np.append(schedule.alpha_bar[times], 1.0)
        for i, (t, row) in enumerate(zip(times, ddim_coefficients(left[:-1], left[1:], 1.0), strict=True)):
            found = apply(x, jnp.full(2, t))
            hat = guided_noise(schedule, x, jnp.int32(t), found, noised(schedule, target, jnp.int32(t), found), 2.0)
            x = ddim_step(jnp.asarray(row, jnp.float32), x, hat, noise[i + 1])
            card.check(f"x_step{i + 1}", harness.nchw(x))
        std, mean = np.float32(IMAGENET_STD), np.float32(IMAGENET_MEAN)
        levels = features((np.asarray(target) + 1) / 2 * std + mean)
    for i, level in enumerate(levels):
        card.check(f"fe{i}", harness.nchw(level))
