"""FAVAE: open-iad's network, maps, losses and gradients."""

import jax
import numpy as np
import pytest

from iadjax import backbones
from iadjax.detectors.autoencoder.favae import FeatureAugmentedVae, favae
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card, nchw

LAYERS = ("relu2_2", "relu3_3", "relu4_3")


@pytest.fixture(scope="module")
def built():
    card = Card("favae")
    backbone = backbones.backbone("vgg16")
    frozen = {"backbone": backbones.convert(backbone, card.part("teacher."), LAYERS)}
    detector = favae(backbone, normalized=True)
    return card, frozen, detector, from_torch("favae", card.tensors, harness.empty_state(detector, frozen, 128))


def test_network_and_maps(built):
    card, frozen, detector, state = built
    x = (card["image"] - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    network = FeatureAugmentedVae(128, 100, (128, 256, 512))
    image, levels, mean, log_variance = jax.jit(network.apply)(state.variables, x, np.zeros((2, 100), np.float32))
    for name, ours in (("mu", mean), ("logvar", log_variance), ("reconstruction", nchw(image))):
        card.check(name, ours)
    for i, (level, truth) in enumerate(zip(levels, detector.embed(frozen, card["image"]), strict=True)):
        card.check(f"student{i}", nchw(level))
        card.check(f"teacher{i}", nchw(truth))
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("map", found.map)
    card.check("score", found.score)


@pytest.mark.slow
def test_loss_and_gradients(built, monkeypatch):
    card, frozen, detector, state = built
    monkeypatch.setattr(jax.random, "normal", lambda key, shape: card["input/eps"])
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    # the card adds the two images; ours is their mean
    for ours, theirs in (
        ("loss_image", card["loss_image"]),
        ("loss_features", sum(card[f"loss_feature{i}"] for i in range(3))),
        ("loss_kl", card["loss_kl"]),
        ("loss", card["loss"]),
    ):
        harness.close(2 * info[ours], theirs, what=ours)
    card.check_gradients("favae", jax.tree.map(lambda each: 2 * each, harness.gradients(new)))
