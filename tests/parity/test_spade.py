"""SPADE: the best known implementation, with ResNet-18."""

from iadjax import backbones
from iadjax.detectors.memory_bank.spade import spade
from tests.parity import harness
from tests.parity.harness import Card, batch_of


def test_byungjae89():
    card = Card("spade")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.tensors, ("layer4",))}
    detector = spade(backbone, num_images=3)
    state = harness.initial_state(detector, frozen, 64, images=4)
    state, _ = harness.update(detector, state, frozen, batch_of(card["image_train"]))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["out/score"], what="score")
    card.check("map_full_gallery", found.map)
