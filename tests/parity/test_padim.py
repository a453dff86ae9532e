"""PaDiM: anomalib."""

import jax.numpy as jnp

from iadjax import backbones
from iadjax.detectors.distribution.padim import padim
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def test_anomalib():
    card = Card("anomalib_padim")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor.feature_extractor."), LAYERS)}
    # anomalib adds .01 I to the covariance, and 1e-5 I once more before it inverts
    detector = padim(backbone, num_channels=100, epsilon=0.01 + 1e-5, sigma=0.0)
    state = harness.initial_state(detector, frozen, 64, images=4)
    state = state._replace(constants=jnp.asarray(card["tensor/idx"], jnp.int32))
    state, _ = harness.update(detector, state, frozen, harness.batch_of(card["train"]))
    maps = harness.mirror_blur(harness.predict(detector, state, frozen, card["image"]).map)
    harness.close(maps, card["map"], what="map")
    harness.close(maps.max(axis=(1, 2)), card["score"], what="score")
