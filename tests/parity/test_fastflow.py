"""FastFlow: Gathierry's code and anomalib."""

import jax
import numpy as np

from iadjax import backbones
from iadjax.detectors.distribution.fastflow import Flows, fastflow
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def built(card, steps):
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor."), LAYERS)}
    detector = fastflow(backbone, flow_steps=steps, conv3x3_only=False, weight_decay=0.0)
    state = from_torch("fastflow", card.tensors, harness.empty_state(detector, frozen, 64))
    levels = jax.jit(lambda variables, image: backbone.features(variables, image, LAYERS))(frozen["backbone"], card["image"])
    latents = jax.jit(Flows((steps, False, 1.0, 2.0), True).apply)(state.variables, levels)
    return frozen, detector, state, latents


def trained(card, frozen, detector, state):
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("fastflow", harness.gradients(new))


def test_gathierry():
    card = Card("fastflow")
    frozen, detector, state, (latents, log_dets) = built(card, 2)
    for i, (z, log_det) in enumerate(zip(latents, log_dets, strict=True)):
        card.check(f"z{i}", harness.nchw(z))
        card.check(f"logdet{i}", log_det)
    card.check("map", harness.predict(detector, state, frozen, card["image"]).map[:, None])
    trained(card, frozen, detector, state)


def test_anomalib():
    card = Card("anomalib_fastflow")
    frozen, detector, state, (latents, log_dets) = built(card, 4)
    for i, z in enumerate(latents):
        harness.close(harness.nchw(z)[:, ::8, ::2, ::2], card[f"z{i}"], what=f"z{i}")
    harness.close(np.stack(log_dets), card["logdet"], what="logdet")
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.map, card["map"], what="map")
    harness.close(found.score, card["score"], what="score")
    trained(card, frozen, detector, state)


def test_names_with_padding_as_a_layer_of_its_own():
    card = Card("anomalib_fastflow")
    frozen, detector, state, _ = built(card, 4)
    positions = {".subnet.0.": ".subnet.1.", ".subnet.2.": ".subnet.4."}
    renamed = {}
    for name, tensor in card.tensors.items():
        for ours, theirs in positions.items():
            name = name.replace(ours, theirs)
        renamed[f"model.{name}"] = tensor
    again = from_torch("fastflow", renamed, state)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (again, state)), strict=True))
