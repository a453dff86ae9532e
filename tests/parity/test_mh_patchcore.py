"""MH-PatchCore: anomalib with ResNet-18, fitted on one batch."""

from iadjax import backbones
from iadjax.detectors.memory_bank.mh_patchcore import mh_patchcore
from tests.parity import harness
from tests.parity.harness import Card, batch_of


def test_anomalib():
    card = Card("anomalib_mh_patchcore")
    backbone = backbones.backbone("resnet18")
    tensors = card.part("feature_extractor.feature_extractor.")
    frozen = {"backbone": backbones.convert(backbone, tensors, ("layer2", "layer3"))}
    detector = mh_patchcore(backbone)
    state = harness.initial_state(detector, frozen, 64, images=4)
    batch = batch_of(card["train"])
    state, _ = harness.update(detector, state, frozen, batch)
    assert state.whitening.shape[1] == card["fit/pca.num_components"][0]
    state, _ = harness.update(detector, state, frozen, batch, phase=1)
    assert len(state.bank) == 256
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(found.map, card["map"], what="map")
