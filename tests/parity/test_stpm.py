"""STPM: anomalib, and the authors' names."""

import numpy as np

from iadjax import backbones
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.stpm import stpm
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def authors_names(tensors):
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6"}
    parts = (name.removeprefix("student_model.feature_extractor.").split(".", 1) for name in tensors)
    return {f"model.{numbers[first]}.{rest}": tensor for (first, rest), tensor in zip(parts, tensors.values(), strict=True)}


def test_anomalib():
    card = Card("anomalib_stfpm")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("teacher_model.feature_extractor."), LAYERS)}
    # anomalib's loss is a sum over the batch, so that its rate grows with it; the card has the mean
    detector = stpm(backbone, at_input=True, weight_decay=0.0)
    empty = harness.empty_state(detector, frozen, 64)
    state = from_torch("stpm", card.tensors, empty)
    again = from_torch("stpm", authors_names(card.without("teacher_model.")), empty)
    assert all(map(np.array_equal, *(harness.jax.tree.leaves(each.variables) for each in (state, again))))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(found.map, card["map"], what="map")
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("stpm", harness.gradients(new))
