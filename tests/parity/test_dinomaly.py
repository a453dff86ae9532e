"""Dinomaly: the authors' code and anomalib.

The card of the authors has one map, which is smoothed at 64 pixels, in place of theirs of 256.
"""

import jax
import numpy as np
import pytest

from iadjax import backbones, ops
from iadjax.backbones.vit import SPECS, Spec
from iadjax.detectors.families.loose import tokens_of
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.transformer.dinomaly import Decoder, dinomaly
from tests.parity import harness
from tests.parity.harness import Card

RAW = {"map_size": 0, "sigma": 0.0}
TRAIN = {"dropout": 0.0, "clip_norm": 1e9, "easy_steps": 0}


def authors(card, **options):
    layers = tuple(f"block{i}" for i in range(2, 6))
    backbone = backbones.backbone("tiny")
    taken = (*layers, *(f"{layer}.class" for layer in layers), *(f"{layer}.registers" for layer in layers))
    frozen = {"backbone": backbones.convert(backbone, card.part("encoder."), taken)}
    detector = dinomaly(backbone, layers=layers, depth=4, heads=3, **options)
    return frozen, detector, from_torch("dinomaly", card.tensors, harness.empty_state(detector, frozen, 70))


TINY = Spec(
    patch=14, dim=48, depth=6, heads=3, grid=4, registers=4, distilled=False, layer_scale=True, hub="", positions="offset"
)


@pytest.fixture
def card(monkeypatch):
    monkeypatch.setitem(SPECS, "tiny", TINY)
    return Card("dinomaly")


def test_authors(card):
    frozen, detector, state = authors(card, **RAW)
    features = jax.jit(detector.embed)(frozen, card["image"])
    for i, group in enumerate(features.groups):
        card.check(f"encoder{i}", harness.nchw(group))
    restored = jax.jit(Decoder(4, 3, 0.0).apply)(state.variables, features)
    for i, group in enumerate(restored):
        card.check(f"decoder{i}", harness.nchw(group))
    # five special tokens and 25 patches
    assert tokens_of(features).shape == (2, 30, 48)
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("map_raw", found.map[:, None])
    _, detector, _ = authors(card, map_size=64)
    card.check("score", harness.predict(detector, state, frozen, card["image"]).score)
    # gradients of all positions alike, then those of the easiest 70 % times .1
    for loss, prefix, factor in (("loss_plain", "grad/plain.", 1.0), ("loss", "grad/", 0.1)):
        _, detector, _ = authors(card, easy=0.7, easy_factor=factor, **TRAIN)
        new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
        harness.close(info["loss"], card[loss], what=loss)
        wanted = {n: x for n, x in card.arrays.items() if n.startswith("grad/plain.") == (factor == 1.0)}
        part = Card.__new__(Card)
        part.arrays = {name.replace(prefix, "grad/"): array for name, array in wanted.items()}
        part.check_gradients("dinomaly", harness.gradients(new))


def test_anomalib(monkeypatch):
    card = Card("anomalib_dinomaly")
    # anomalib's rule for the positions
    monkeypatch.setitem(SPECS, "dinov2_vits14_reg", SPECS["dinov2_vits14_reg"]._replace(positions="exact"))
    backbone = backbones.backbone("dinov2_vits14_reg")
    names = [f"block{i}{kind}" for kind in ("", ".class", ".registers") for i in range(3, 11)]
    frozen = {"backbone": backbones.convert(backbone, card.part("encoder.feature_extractor."), names)}
    detector = dinomaly(backbone, **TRAIN, **RAW)
    state = from_torch("dinomaly", card.tensors, harness.empty_state(detector, frozen, 84))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.map, card["map"], what="map")
    # its score is that of the map at 256 pixels, smoothed with the border mirrored
    large = ops.resize(np.asarray(found.map)[..., None], (256, 256))[..., 0]
    ordered = np.sort(harness.mirror_blur(large, truncate=0.5).reshape(2, -1))
    harness.close(ordered[:, -655:].mean(axis=1), card["score"], what="score")
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("dinomaly", harness.gradients(new))
