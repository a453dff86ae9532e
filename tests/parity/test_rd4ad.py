"""RD4AD: the authors' code and anomalib."""

from iadjax import backbones
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.rd4ad import rd4ad
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def built(card, encoder, **options):
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part(encoder), LAYERS)}
    detector = rd4ad(backbone, **options)
    return frozen, detector, from_torch("rd4ad", card.tensors, harness.empty_state(detector, frozen, 64))


def trained(card, frozen, detector, state):
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("rd4ad", harness.gradients(new, beta1=0.5))


def test_authors():
    card = Card("rd4ad")
    frozen, detector, state = built(card, "encoder.")
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("map", found.map)
    card.check("score", found.score)
    trained(card, frozen, detector, state)


def test_anomalib():
    card = Card("anomalib_reverse_distillation")
    frozen, detector, state = built(card, "encoder.feature_extractor.", sigma=0.0)
    maps = harness.mirror_blur(harness.predict(detector, state, frozen, card["image"]).map)
    harness.close(maps, card["map"], what="map")
    harness.close(maps.max(axis=(1, 2)), card["score"], what="score")
    trained(card, frozen, detector, state)
