"""FRE: anomalib."""

from iadjax import backbones
from iadjax.detectors.distribution.fre import fre
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


def test_anomalib():
    card = Card("anomalib_fre")
    backbone = backbones.backbone("resnet18")
    weights = card.part("feature_extractor.feature_extractor.")
    frozen = {"backbone": backbones.convert(backbone, weights, ("layer3",))}
    detector = fre(backbone, latent=32)
    state = from_torch("fre", card.tensors, harness.empty_state(detector, frozen, 64))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.map, card["map"], what="map")
    harness.close(found.score, card["score"], what="score")
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("fre", harness.gradients(new))
