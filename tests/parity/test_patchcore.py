"""PatchCore: anomalib, whose map is enlarged by nearest neighbours; the card holds the authors' bilinear one beside it."""

from iadjax import backbones
from iadjax.detectors.memory_bank.patchcore import patchcore
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer2", "layer3")


def test_anomalib():
    card = Card("anomalib_patchcore")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor.feature_extractor."), LAYERS)}
    detector = patchcore(backbone, coreset_ratio=1.0, sigma=0.0)
    state = harness.initial_state(detector, frozen, 64, images=4)
    state, _ = harness.update(detector, state, frozen, harness.batch_of(card["train"]))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(harness.mirror_blur(found.map), card["map_bilinear"], what="map_bilinear")
