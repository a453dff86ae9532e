"""UniNet: anomalib."""

import jax
import numpy as np
import pytest

from iadjax import backbones, ops
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.uninet import uninet
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def built(card, **options):
    backbone = backbones.backbone("resnet50")
    frozen = {"backbone": backbones.convert(backbone, card.part("teachers.source_teacher."), LAYERS)}
    detector = uninet(backbone, temperature=0.1, anomalous_margin=1.0, **options)
    return frozen, detector, harness.empty_state(detector, frozen, 128)


# a ResNet-50 three times
@pytest.mark.slow
def test_anomalib():
    card = Card("anomalib_uninet")
    frozen, detector, like = built(card, classify=True)
    state = from_torch("uninet", card.tensors, like)
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.map, card["map"], what="map")
    harness.close(ops.kernel_blur(found.map, 4.0, 5).max(axis=(1, 2)), card["score"], what="score")
    batch = harness.batch_of(card["image"], label=[0, 1])._replace(mask=card["mask"])
    new, info = harness.update(detector, state, frozen, batch, double=True)
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("uninet", harness.gradients(new))


def test_names_of_the_authors():
    card = Card("anomalib_uninet")
    state = from_torch("uninet", card.tensors, built(card, classify=True)[2])
    parts = {"teachers.target_teacher.": "tt.", "bottleneck.": "bn.", "student.": "st.", "fc.": "st.fc."}
    theirs = {new + name: tensor for old, new in parts.items() for name, tensor in card.part(old).items()}
    theirs["bn.conv4.weight"] = np.zeros((8, 8, 1, 1), np.float32)
    # their checkpoints have no theta, and a student without a head is none
    for options in ({}, {"learned_theta": False}):
        again = from_torch("uninet", theirs, built(card, **options)[2])
        params = again.variables["params"]
        assert set(params) == {"student", "target"} | (set() if options else {"theta"})
        assert not any(np.any(leaf) for leaf in jax.tree.leaves(params.get("theta", {})))
        for name in ("student", "target"):
            leaves = zip(*(jax.tree.leaves(each.variables["params"][name]) for each in (again, state)), strict=True)
            assert all(np.array_equal(a, b) for a, b in leaves)
