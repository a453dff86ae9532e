"""PyramidFlow: the authors' code, in whose training the BatchNorms of ResNet-18 take statistics of the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.cpu.dispatch import plain
from iadjax.detectors.distribution.pyramidflow import Flow, pyramidflow
from iadjax.detectors.pytorch import from_torch
from iadjax.nn.pyramid_flow import build_pyramid, compose_pyramid
from tests.parity import harness
from tests.parity.harness import Card

NAMES = {"0": "conv1", "1": "bn1", "4": "layer1"}
OPTIONS = {"levels": 3, "stacks": 1}


@pytest.fixture(scope="module")
def built():
    card = Card("pyramidflow")
    backbone = backbones.backbone("resnet18")
    tensors = {}
    for name, tensor in card.part("inconv.").items():
        first, rest = name.split(".", 1)
        tensors[f"{NAMES[first]}.{rest}"] = tensor
    frozen = {"backbone": backbones.convert(backbone, tensors, ("layer1",))}
    detector = pyramidflow(backbone, **OPTIONS)
    return card, backbone, frozen, from_torch("pyramidflow", card.tensors, harness.empty_state(detector, frozen, 64)), detector


def test_pyramids_and_scores(built):
    card, backbone, frozen, state, detector = built
    with plain():
        features = jax.jit(detector.embed)(frozen, jnp.concatenate([card["image"], card["image_template"]]))
    card.check("features", harness.nchw(features[:2]))
    pyramid = jax.jit(build_pyramid, static_argnums=1)(features, 3)
    for i, level in enumerate(pyramid):
        card.check(f"pyramid{i}", harness.nchw(level[:2]))
    card.check("composed", harness.nchw(jax.jit(compose_pyramid)([level[:2] for level in pyramid])))
    flow = Flow(3, 1, 7, 2.0, "channel")
    with plain():
        z, _ = jax.jit(flow.apply)(state.trained.variables, pyramid)
    for i, level in enumerate(z):
        card.check(f"latent{i}", harness.nchw(level[:2]))
    template = tuple(level[2:].mean(axis=0) for level in z)
    found = harness.predict(detector, state._replace(template=template), frozen, card["image"])
    card.check("score", found.score)
    grid = compose_pyramid([jnp.abs(level[:2] - mean[None]) for level, mean in zip(z, template, strict=True)])
    card.check("map", grid.mean(axis=-1)[:, None])


def test_loss(built):
    card, backbone, frozen, state, _ = built
    with plain():
        features, _ = jax.jit(lambda variables, x: backbone.features(variables, x, ("layer1",), train=True))(
            frozen["backbone"], card["image"]
        )
    given, frozen = harness.given([np.asarray(features[0])])
    detector = pyramidflow(given, layer="level0", **OPTIONS, weight_decay=0.0, clip_norm=0.0)
    state = from_torch("pyramidflow", card.tensors, harness.empty_state(detector, frozen, 64))
    new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("pyramidflow", harness.gradients(new, beta1=0.5))
