"""SimpleNet: the authors' code."""

import jax.numpy as jnp

from iadjax import backbones
from iadjax.detectors.one_class import simplenet as module
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer2", "layer3")


def test_authors(monkeypatch):
    card = Card("simplenet")
    # the card's noise stands in for the draw: rows are images, then positions
    monkeypatch.setattr(module, "gaussian_noise", lambda key, q, std: q + jnp.asarray(card["input/noise"]).reshape(q.shape))
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("backbone."), LAYERS)}
    sizes = {"pretrain_dimension": 96, "target_dimension": 96, "hidden": 48}
    detector = module.simplenet(backbone, **sizes, weight_decay=0.0)
    state = from_torch("simplenet", card.tensors, harness.empty_state(detector, frozen, 64))
    found = harness.predict(detector, state, frozen, card["image"])
    card.check("score", found.score)
    card.check("map", found.map)
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    networks = harness.gradients(new)
    card.check_gradients("simplenet", networks)
