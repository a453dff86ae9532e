"""DeSTSeg: the authors' code."""

import numpy as np

from iadjax import backbones
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.destseg import destseg
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def test_authors(monkeypatch):
    card = Card("destseg")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("teacher_net.encoder."), LAYERS)}
    detector = destseg(backbone, weight_decay=0.0)
    state = from_torch("destseg", card.tensors, harness.empty_state(detector, frozen, 64))
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("map", np.asarray(found.map)[:, None])
    card.check("score", found.score)
    mask = card["input/mask"][:, 0].astype(np.uint8)
    batch = harness.batch_of(card["image"], augmented=card["image_aug"], mask=mask)
    names = ("student", "segmentation")
    for phase, loss in enumerate(("loss_step1", "loss_step2")):
        new, info = harness.update(detector, state, frozen, batch, phase=phase)
        harness.close(info["loss"], card[loss], what=loss)
        # a card holds the gradients of both phases
        part = {name: x for name, x in card.arrays.items() if name.startswith(f"grad/{names[phase]}_net.")}
        monkeypatch.setattr(card, "arrays", part)
        card.check_gradients("destseg", {names[phase]: harness.gradients(new[phase])})
        monkeypatch.undo()
    harness.close(info["loss_focal"], card["loss_focal"], what="loss_focal")
    harness.close(info["loss_l1"], card["loss_l1"], what="loss_l1")
