"""U-Flow: anomalib, whose loss is right for batches of one image only: the card's is their mean."""

import jax
import numpy as np

from iadjax import backbones
from iadjax.detectors.distribution.uflow import Flow, Network, uflow
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def test_anomalib():
    card = Card("anomalib_uflow")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor.feature_extractor."), LAYERS)}
    detector = uflow(backbone, flow_steps=2, weight_decay=0.0)
    state = from_torch("uflow", card.tensors, harness.empty_state(detector, frozen, 64))
    levels = jax.jit(lambda variables, image: backbone.features(variables, image, LAYERS))(frozen["backbone"], card["image"])
    z, log_det = jax.jit(Network((2, 1.0, 2.0), True).apply)(state.variables, levels)
    for i, each in enumerate(z):
        harness.close(harness.nchw(each)[:, ::8, ::2, ::2], card[f"z{i}"], what=f"z{i}")
    harness.close(log_det, card["logdet"], what="logdet")
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.map, card["map"], what="map")
    harness.close(found.score, card["score"], what="score")
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("uflow", harness.gradients(new))
    flow = Flow((64, 128, 256), 2, 1.0, 2.0)
    tree = {name: state.variables[name]["flow"] for name in ("params", "constants")}
    _, back = jax.jit(lambda z: flow.apply(tree, z, inverse=True))(z)
    np.testing.assert_allclose(log_det, -np.asarray(back), rtol=1e-4)
