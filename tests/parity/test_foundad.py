"""FoundAD: anomalib, whose map is smoothed with the border mirrored. The authors publish pickled files only."""

from iadjax import backbones
from iadjax.backbones.vit import SPECS
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.transformer.foundad import foundad
from tests.parity import harness
from tests.parity.harness import Card


def test_anomalib(monkeypatch):
    card = Card("anomalib_foundad")
    # its rule for the positions
    monkeypatch.setitem(SPECS, "dinov2_vits14", SPECS["dinov2_vits14"]._replace(positions="exact"))
    backbone = backbones.backbone("dinov2_vits14")
    # the card has ten blocks and the norm
    frozen = {"backbone": backbones.convert(backbone, card.part("encoder._model."), ("block10.norm",))}
    detector = foundad(backbone, width=96, depth=2, heads=6, positions=True, dropout=0.0, paste=0.0, weight_decay=0.0)
    state = from_torch("foundad", card.tensors, harness.empty_state(detector, frozen, 84))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(harness.mirror_blur(found.map, truncate=0.5), card["map"], what="map")
    batch = harness.batch_of(card["image"], varied=card["image"], pasted=card["image"])
    new, info = harness.update(detector, state, frozen, batch)
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("foundad", harness.gradients(new))
