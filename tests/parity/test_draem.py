"""DRAEM: the authors' code and anomalib."""

import functools

import numpy as np

from iadjax import losses
from iadjax.detectors.autoencoder.draem import draem
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


def built(card, width, segment_width, size):
    detector = draem(width=width, segment_width=segment_width)
    return detector, from_torch("draem", card.tensors, harness.empty_state(detector, {}, size))


def test_authors(monkeypatch):
    """The card gives its network RGB; `from_torch` expects one that was trained on BGR, so the channels are reversed."""
    # the authors' SSIM has the range 2 instead of 1 while the reconstruction is below -.5 anywhere, as here
    monkeypatch.setattr(losses, "ssim", functools.partial(losses.ssim, data_range=2.0))
    card = Card("draem")
    image, augmented = card["image"][..., ::-1], card["image_aug"][..., ::-1]
    detector, state = built(card, 8, 8, 64)
    found = harness.predict(detector, state, {}, image)
    card.check("map", found.map)
    card.check("score", found.score)
    batch = harness.batch_of(image, original=image, augmented=augmented, mask=card["input/mask"][:, 0].astype(np.uint8))
    new, info = harness.update(detector, state, {}, batch)
    for ours, theirs in (("loss_l2", "loss_l2"), ("loss_segment", "loss_focal"), ("loss_ssim", "loss_ssim"), ("loss", "loss")):
        harness.close(info[ours], card[theirs], what=theirs)
    # the card's gradients are float32, whose rounding PyTorch multiplies in this network (anomalib's card: by .9 % of them)
    card.check_gradients("draem", harness.gradients(new), tolerance=2e-2)


def test_anomalib():
    card = Card("anomalib_draem")
    detector, state = built(card, 16, 8, 96)
    found = harness.predict(detector, state, {}, card["image"])
    harness.close(found.map, card["map"], what="map")
    # anomalib takes the largest pixel; ours is the authors' score
    harness.close(found.map.max(axis=(1, 2)), card["score"], what="score")
    harness.close(found.score, card["score_pooled"], what="score_pooled")
    batch = harness.batch_of(card["image"], original=card["image"], augmented=card["augmented"], mask=card["mask"])
    new, info = harness.update(detector, state, {}, batch, double=True)
    # the authors' losses: anomalib's focal loss gives normal pixels the weight 0, its SSIM mirrors at the border
    for name in ("loss_l2", "loss_ssim", "loss_segment", "loss"):
        harness.close(info[name], card[name], what=name)
    card.check_gradients("draem", harness.gradients(new))
