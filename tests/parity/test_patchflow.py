"""PatchFlow: anomalib."""

import jax
import numpy as np

from iadjax import backbones
from iadjax.detectors.distribution.patchflow import PatchFlow, patchflow
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer2", "layer3", "layer4")


def test_anomalib():
    card = Card("anomalib_patchflow")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("feature_extractor.feature_extractor."), LAYERS)}
    options = {"dimension": 32, "hidden": 24, "flow_steps": 2, "interpolation": "bilinear", "align_corners": False}
    detector = patchflow(backbone, layers=LAYERS, weight_decay=0.0, **options)
    state = from_torch("patchflow", card.tensors, harness.empty_state(detector, frozen, 64))
    found = harness.predict(detector, state, frozen, card["image"])
    harness.close(found.map, card["map"], what="map")
    harness.close(found.score, card["score"], what="score")
    levels = jax.jit(detector.embed)(frozen, card["image"])
    network = PatchFlow(32, False, (2, 24, 2.0))
    z, log_det = jax.jit(network.apply)(state.variables, levels)
    nll = np.mean(0.5 * np.sum(np.asarray(z, np.float64) ** 2, axis=(1, 2, 3)) - np.asarray(log_det)) / z[0].size
    harness.close(nll, card["loss_eval"], what="loss with running statistics")
    valid = np.ones(2, bool)
    (z, log_det), _ = jax.jit(lambda *given: network.apply(*given, valid, mutable="batch_stats"))(state.variables, levels)
    harness.close(harness.nchw(z)[:, ::4], card["z"], what="z")
    harness.close(log_det, card["logdet"], what="logdet")
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("patchflow", harness.gradients(new))


def test_names_of_the_authors():
    card = Card("anomalib_patchflow")
    backbone, frozen = harness.given([np.zeros((2, 8, 8, 1344), np.float32), np.zeros((2, 4, 4, 1344), np.float32)])
    detector = patchflow(backbone, layers=backbone.layers, num_scales=1, dimension=32, hidden=24, flow_steps=2)
    like = harness.empty_state(detector, frozen, 64)
    state = from_torch("patchflow", card.tensors, like)
    renamed = {
        f"graph.{name}" if name.startswith("flow.") else name: tensor for name, tensor in card.without("feature_e").items()
    }
    renamed |= {f"feature_adaptor.conv1.{key}": renamed.pop(f"feature_adaptor.{key}") for key in ("weight", "bias")}
    again = from_torch("patchflow", renamed, like)
    assert all(np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, (again, state)), strict=True))
