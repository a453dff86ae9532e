"""SuperADD: anomalib with the real DINOv3 ViT-S/16, on tiles."""

from iadjax import backbones
from iadjax.detectors.memory_bank.superadd import superadd
from tests.parity import harness
from tests.parity.harness import Card, batch_of


def test_anomalib():
    card = Card("anomalib_super_add")
    backbone = backbones.backbone("dinov3_vits16")
    layers = ("block4", "block6", "block9", "block11")
    frozen = {"backbone": backbones.convert(backbone, card.part("backbone.dino."), layers)}
    detector = superadd(backbone, layers=layers, tile=64, overlap=16, brightness=0.0)
    state = harness.initial_state(detector, frozen, 96, images=4)
    state, _ = harness.update(detector, state, frozen, batch_of(card["train"]))
    assert all(len(bank) == 4 * 36 for bank in state.levels)
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(found.map, card["map"], what="map")
