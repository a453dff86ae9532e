"""INP-Former: the authors' code and anomalib.

The card of the authors has one map, which is smoothed at 64 pixels, in place of theirs of 256. anomalib keeps class token and
registers, and mirrors the border of the smoothed map, which it scores at the input's size.
"""

import jax
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.vit import SPECS, Spec
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.transformer.inpformer import Decoder, inpformer
from tests.parity import harness
from tests.parity.harness import Card

RAW = {"map_size": 0, "sigma": 0.0}
TINY = Spec(
    patch=14, dim=48, depth=6, heads=3, grid=4, registers=4, distilled=False, layer_scale=True, hub="", positions="offset"
)


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setitem(SPECS, "tiny", TINY)
    return Card("inpformer")


def test_authors(card):
    layers = tuple(f"block{i}" for i in range(2, 6))
    backbone = backbones.backbone("tiny")
    frozen = {"backbone": backbones.convert(backbone, card.part("encoder."), layers)}
    options = {"layers": layers, "num_prototypes": 4, "depth": 4, "heads": 3, "clip_norm": 1e9}
    detector = inpformer(backbone, **options, **RAW)
    state = from_torch("inpformer", card.tensors, harness.empty_state(detector, frozen, 70))
    restored, prototypes = jax.jit(Decoder(4, 4, 3, 0.0).apply)(state.variables, jax.jit(detector.embed)(frozen, card["image"]))
    for i, group in enumerate(restored):
        card.check(f"decoder{i}", harness.nchw(group))
    card.check("prototypes", prototypes)
    card.check("map_raw", harness.predict(detector, state, frozen, card["image"]).map[:, None])
    smooth = inpformer(backbone, **options, map_size=64)
    card.check("score", harness.predict(smooth, state, frozen, card["image"]).score)
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    for ours, theirs in (("loss", "loss"), ("loss_coherence", "loss_gather"), ("loss_mining", "loss_cosine")):
        harness.close(info[ours], card[theirs], what=theirs)
    card.check_gradients("inpformer", harness.gradients(new))


def test_anomalib(monkeypatch):
    card = Card("anomalib_inp_former")
    # its rule for the positions
    monkeypatch.setitem(SPECS, "dinov2_vits14_reg", SPECS["dinov2_vits14_reg"]._replace(positions="exact"))
    backbone = backbones.backbone("dinov2_vits14_reg")
    detector = inpformer(backbone, special_tokens=True, clip_norm=1e9, **RAW)
    frozen = {"backbone": backbones.convert(backbone, card.part("encoder.feature_extractor."), ("block10",))}
    state = from_torch("inpformer", card.tensors, harness.empty_state(detector, frozen, 84))
    maps = harness.mirror_blur(harness.predict(detector, state, frozen, card["image"]).map, truncate=0.5)
    harness.close(maps, card["map"], what="map")
    harness.close(np.sort(maps.reshape(2, -1))[:, -70:].mean(axis=1), card["score"], what="score")
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("inpformer", harness.gradients(new))
