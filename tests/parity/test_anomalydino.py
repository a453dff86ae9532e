"""AnomalyDINO: anomalib with the real ViT-S/14.

Its map is enlarged by nearest neighbours; the card holds the bilinear one beside it. It resizes the positions exactly, Meta's
code by (n + .1) / 37: the table of the card is brought to the small grid by the first rule, and ours is given that table.
"""

from iadjax import backbones
from iadjax.backbones.vit import SPECS
from iadjax.detectors.memory_bank.anomalydino import anomalydino
from tests.parity import harness
from tests.parity.harness import Card


def test_anomalib(monkeypatch):
    card = Card("anomalib_anomaly_dino")
    monkeypatch.setitem(SPECS, "dinov2_vits14", SPECS["dinov2_vits14"]._replace(positions="exact"))
    backbone = backbones.backbone("dinov2_vits14")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_encoder.feature_extractor."), ("norm",))}
    detector = anomalydino(backbone, rotations=1, sigma=0.0)
    state = harness.initial_state(detector, frozen, 84, images=4)
    state, _ = harness.update(detector, state, frozen, harness.batch_of(card["train"]))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(harness.mirror_blur(found.map), card["map_bilinear"], what="map_bilinear")
