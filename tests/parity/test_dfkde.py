"""DFKDE: anomalib."""

import numpy as np

from iadjax import backbones
from iadjax.detectors.distribution.dfkde import dfkde
from tests.parity import harness
from tests.parity.harness import Card


def test_anomalib():
    card = Card("anomalib_dfkde")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor.feature_extractor."), ("layer4",))}
    detector = dfkde(backbone, num_components=3)
    state, _ = harness.update(detector, harness.initial_state(detector, frozen, 64, 4), frozen, harness.batch_of(card["train"]))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(-found.score, card["log_density"], what="log density")
    # anomalib's score follows from it
    harness.close(1 / (1 + np.exp(0.05 * (-np.asarray(found.score) - 12))), card["score"], what="score")
    assert found.map is None
