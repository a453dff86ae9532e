"""GeneralAD: anomalib, whose map is not smoothed; its noise and its choice of patches are given to ours."""

import json

import jax.numpy as jnp

from iadjax import backbones
from iadjax.backbones.vit import SPECS
from iadjax.detectors.one_class import generalad as module
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


def test_anomalib(monkeypatch):
    card = Card("anomalib_general_ad")
    # its network is made for 84 pixels
    monkeypatch.setitem(SPECS, "dinov2_vits14", SPECS["dinov2_vits14"]._replace(grid=6))
    backbone = backbones.backbone("dinov2_vits14")
    pretrained = card.part("feature_extractor.pretrained_model.")
    frozen = {"backbone": backbones.convert(backbone, pretrained, ("norm",))}
    detector = module.generalad(backbone, hidden=64, dropout=0.0, sigma=0.0)
    state = from_torch("generalad", card.tensors, harness.empty_state(detector, frozen, 84))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(found.map, card["map"], what="map")
    drawn = json.loads(str(card.arrays["random"]))
    # standard deviations are those of the noise itself, 0.25
    noises = [
        harness.fill(name, tuple(drawn[name][0])).reshape(2, 6, 6, 384) * drawn[name][1] / 0.25
        for name in ("noise_all", "noise_some")
    ]
    mask = jnp.asarray(card.arrays["noise_mask"].astype(bool))
    queue = iter(noises)
    monkeypatch.setattr(module, "draw_noise", lambda key, shape: jnp.asarray(next(queue), jnp.float32))
    monkeypatch.setattr(module, "draw_patches", lambda key, shape: mask)
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("generalad", harness.gradients(new))
