"""SuperSimpleNet: anomalib, which enlarges with half-pixel centres and classifies plain features."""

import json

import jax
import jax.numpy as jnp

from iadjax import backbones
from iadjax.detectors.one_class import supersimplenet as module
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer2", "layer3")


def test_anomalib(monkeypatch):
    card = Card("anomalib_supersimplenet")
    backbone = backbones.backbone("resnet18")
    pretrained = card.part("feature_extractor.feature_extractor.feature_extractor.")
    frozen = {"backbone": backbones.convert(backbone, pretrained, LAYERS)}
    detector = module.supersimplenet(backbone, align_corners=False, classify_adapted=False, sigma=0.0)
    state = from_torch("supersimplenet", card.tensors, harness.empty_state(detector, frozen, 64))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    # its map is the probability of the smoothed logit
    harness.close(jax.nn.sigmoid(harness.mirror_blur(found.map, truncate=3.0)), card["map"], what="map")
    # the noise of the first and of the second copy of both images
    shape, std = json.loads(str(card.arrays["random"]))["noise"]
    noise = harness.fill("noise", tuple(shape)).transpose(0, 2, 3, 1) * std
    copies = iter((noise[:2], noise[2:]))
    monkeypatch.setattr(module, "gaussian_noise", lambda key, x, std: x + jnp.asarray(next(copies)))
    perlin = card["perlin_masks"].reshape(2, 2, 16, 16).swapaxes(0, 1)
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"], perlin=perlin))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("supersimplenet", harness.gradients(new))
