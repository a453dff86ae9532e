"""AnomalyDINO: anomalib with the real ViT-S/14.

Its map is enlarged by nearest neighbours; the card holds the bilinear one beside it. It resizes the positions exactly, Meta's
code by (n + .1) / 37: the table of the card is brought to the small grid by the first rule, and ours is given that table.
"""

import importlib

import numpy as np

from iadjax import backbones
from iadjax.detectors.memory_bank.anomalydino import anomalydino
from tests.parity import harness
from tests.parity.harness import Card

vit = importlib.import_module("iadjax.backbones.vit")


def exact_matrix(source: int, target: int) -> np.ndarray:
    """`[target, source]`: bicubic with half-pixel centres, a = -0.75, no antialiasing, the border repeated."""
    centre = (np.arange(target) + 0.5) * source / target - 0.5
    weights = np.zeros((target, source))
    for tap in range(-1, 3):
        index = np.floor(centre).astype(int) + tap
        np.add.at(weights, (np.arange(target), np.clip(index, 0, source - 1)), vit._cubic(centre - index, -0.75))
    return weights


def test_anomalib(monkeypatch):
    card = Card("anomalib_anomaly_dino")
    monkeypatch.setattr(vit, "position_matrix", lambda source, target, antialias: exact_matrix(source, target))
    backbone = backbones.backbone("dinov2_vits14")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_encoder.feature_extractor."), ("norm",))}
    detector = anomalydino(backbone, rotations=1, sigma=0.0)
    state = harness.initial_state(detector, frozen, 84, images=4)
    state, _ = harness.update(detector, state, frozen, harness.batch_of(card["train"]))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(harness.mirror_blur(found.map), card["map_bilinear"], what="map_bilinear")
