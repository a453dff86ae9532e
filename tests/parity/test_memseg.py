"""MemSeg: the re-implementation of TooTouch (there is no code of the authors)."""

import numpy as np

from iadjax import backbones
from iadjax.detectors.one_class.memseg import memseg
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("relu", "layer1", "layer2", "layer3", "layer4")


def test_reimplementation():
    card = Card("memseg")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor."), LAYERS)}
    detector = memseg(backbone, num_memory=3, weight_decay=0.0, steps=10)
    state = from_torch("memseg", card.tensors, harness.empty_state(detector, frozen, 64, images=3))
    state, _ = harness.update(detector, state, frozen, harness.batch_of(card["image_memory"]))
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("map", found.map)
    card.check("score", found.score)
    mask = card["input/mask"].astype(np.uint8)
    batch = harness.batch_of(card["image"], augmented=card["image"], mask=mask)
    new, info = harness.update(detector, state, frozen, batch, phase=1)
    harness.close(info["loss"], card["loss"], what="loss")
    harness.close(info["loss_l1"], card["loss_l1"], what="loss_l1")
    # our focal loss adds its smoothing of 1e-5 to the probability
    harness.close(info["loss_focal"], card["loss_focal"], 2e-4, "loss_focal")
    gradients = harness.gradients(new)
    # the levels of the memory keep their weights
    assert not [name for name in gradients["backbone"] if name.startswith(("layer1", "layer2", "layer3"))]
    card.check_gradients("memseg", gradients)
