"""RAD: anomalib with the real DINOv3 ViT-S/16."""

from iadjax import backbones
from iadjax.detectors.memory_bank.rad import rad
from tests.parity import harness
from tests.parity.harness import Card, batch_of


def test_anomalib():
    card = Card("anomalib_rad")
    backbone = backbones.backbone("dinov3_vits16")
    detector = rad(backbone, num_images=3, map_size=0)
    tensors = card.part("feature_extractor.feature_extractor.")
    frozen = {"backbone": backbones.convert(backbone, tensors, ("norm", "class"))}
    state = harness.initial_state(detector, frozen, 80, images=4)
    state, _ = harness.update(detector, state, frozen, batch_of(card["train"]))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(found.map, card["map"], what="map")
