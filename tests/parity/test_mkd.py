"""MKD: the authors' code."""

from iadjax import backbones
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.mkd import mkd
from tests.parity import harness
from tests.parity.harness import Card, nchw

LAYERS = ("pool2", "pool3", "pool4", "pool5")


def test_authors():
    card = Card("mkd")
    backbone = backbones.backbone("vgg16")
    frozen = {"backbone": backbones.convert(backbone, card.part("source."), LAYERS)}
    detector = mkd(backbone, normalize_map=True)
    state = from_torch("mkd", card.tensors, harness.empty_state(detector, frozen, 32))
    for name, level in zip(LAYERS, detector.embed(frozen, card["image"]), strict=True):
        card.check(f"source_{name}", nchw(level))
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("score", found.score)
    card.check("map_gradients", found.map, 1e-3)
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("mkd", harness.gradients(new))
