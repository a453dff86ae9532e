"""CFA: anomalib."""

import numpy as np

from iadjax import backbones
from iadjax.detectors.memory_bank.cfa import cfa
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def test_anomalib():
    card = Card("anomalib_cfa")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor."), LAYERS)}
    detector = cfa(backbone, sigma=0.0, weight_decay=0.0)
    state = from_torch("cfa", card.tensors, harness.initial_state(detector, frozen, 64, images=4))
    state, _ = harness.update(detector, state, frozen, harness.batch_of(card["train"]))
    total, norm = card["fit/memory_bank"]
    centers = np.asarray(state.centers, np.float64)
    harness.report("memory", abs(np.linalg.norm(centers) - norm) / norm, 1e-5)
    harness.report("memory's sum", abs(centers.sum() - total) / np.abs(centers).sum(), 1e-5)
    found = harness.predict(detector, state, frozen, card["image"])
    maps = harness.mirror_blur(found.map)
    harness.close(maps, card["map"], what="map")
    harness.close(maps.max(axis=(1, 2)), card["score"], what="score")
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]), phase=1)
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("cfa", harness.gradients(new))
