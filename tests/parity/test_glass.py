"""GLASS: the authors' code (both distributions) and anomalib."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.detectors.one_class import glass as module
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer2", "layer3")


@pytest.fixture(scope="module")
def authors():
    card = Card("glass")
    backbone = backbones.backbone("resnet18")
    return card, backbone, {"backbone": backbones.convert(backbone, card.part("backbone."), LAYERS)}


def trained(card, backbone, frozen, noise, extra, train=None, **options):
    """A state after the pass of the mean and one step, which is returned as well with its log."""
    detector = module.glass(backbone, weight_decay=0.0, **options)
    state = from_torch("glass", card.tensors, harness.empty_state(detector, frozen, 64))
    first = state
    # in pairs, so that nothing more is compiled
    for images in [card["image"]] if train is None else np.split(train, 2):
        first, _ = harness.update(detector, first, frozen, harness.batch_of(images))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "gaussian_noise", lambda key, x, std: x + jnp.asarray(noise).reshape(x.shape))
        return detector, first, *harness.update(detector, first, frozen, harness.batch_of(card["image"], **extra), phase=1)


@pytest.mark.parametrize("distribution", ["hypersphere", "manifold"])
def test_authors(authors, distribution):
    card, backbone, frozen = authors
    sizes = {"pretrain_dimension": 96, "target_dimension": 96, "hidden": 48}
    extra = {"augmented": card["image_aug"], "mask": card["input/mask_s"].astype(np.uint8)}
    detector, first, new, info = trained(card, backbone, frozen, card["input/noise"], extra, distribution=distribution, **sizes)
    harness.close(info["loss"], card[f"loss_{distribution}"], what="loss")
    harness.close(info["loss_local"], card[f"loss_focal_{distribution}"], what="loss_local")
    if distribution == "hypersphere":
        card.check("center", np.asarray(new.centre).reshape(64, 96))
        found = harness.predict(detector, first, frozen, card["image"])
        card.check("score", found.score)
        card.check("map", found.map)
    gradients = harness.gradients(new)
    for name, path in (
        ("discriminator.tail.0", ("discriminator", "tail")),
        ("pre_projection.layers.0fc", ("adaptor", "layers_0fc")),
    ):
        ours = gradients[path[0]][path[1]]["kernel"]
        total, norm = card[f"grad/{distribution}.{name}.weight"]
        harness.report(name, abs(np.linalg.norm(ours) - norm) / norm, harness.GRADIENT)
        harness.report(f"{name} sum", abs(ours.sum() - total) / (norm * ours.size**0.5), harness.GRADIENT)


def test_anomalib():
    """Its training step stops at the ring after 5 of 6 steps."""
    card = Card("anomalib_glass")
    backbone = backbones.backbone("resnet18")
    variables = card.part("forward_modules.feature_aggregator.feature_extractor.")
    frozen = {"backbone": backbones.convert(backbone, variables, LAYERS)}
    shape, std = json.loads(str(card.arrays["random"]))["gaussian"]
    noise = harness.fill("gaussian", tuple(shape)) * std * 0.015
    mask = np.stack([module.on_grid(each, (8, 8)) for each in card["mask"]])
    sizes = {"pretrain_dimension": 96, "target_dimension": 64, "hidden": 48}
    extra = {"augmented": card["augmented"], "mask": mask}
    options = {"distribution": "manifold", "ascent_steps": 6, "sigma": 0.0, **sizes}
    detector, first, new, info = trained(card, backbone, frozen, noise, extra, card["train"], **options)
    for ours, theirs in (("loss_normal", "loss_true"), ("loss_global", "loss_gaussian"), ("loss_local", "loss_focal")):
        harness.close(info[ours], card[theirs], what=theirs)
    card.check_gradients("glass", harness.gradients(new))
    found = harness.predict(detector, first, frozen, card["image"])
    harness.close(found.score, card["score"], what="score")
    harness.close(harness.mirror_blur(found.map), card["map"], what="map")
