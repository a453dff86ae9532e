"""IKD: the authors' code, with its HRNet-18."""

import jax
import jax.numpy as jnp
import pytest

from iadjax import backbones, ops
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.ikd import ikd
from tests.parity import harness
from tests.parity.harness import Card

BRANCHES = tuple(f"branch{i}" for i in range(4))


# compiled as a whole, this network takes minutes; operation by operation one
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def case():
    card = Card("ikd")
    backbone = backbones.backbone("hrnet_w18_bilinear")
    frozen = {"backbone": backbones.convert(backbone, card.part("teacher."), BRANCHES)}
    return card, backbone, frozen


def test_authors(case):
    card, backbone, frozen = case
    with jax.disable_jit():
        for i, level in enumerate(backbone.features(frozen["backbone"], jnp.asarray(card["image"]), BRANCHES)):
            level = ops.resize(level, (16, 16), align_corners=True)
            card.check(f"teacher_x{i}", jnp.moveaxis(level, -1, 1))
        detector = ikd(backbone)
        state = from_torch("ikd", card.tensors, harness.empty_state(detector, frozen, 64))
        found = harness.predict(detector, state, frozen, card["image"])
    # the authors enlarge the map by OpenCV, which aligns the borders of the image
    raw = jnp.asarray(card["out/map_raw"].reshape(2, 16, 16), jnp.float32)
    harness.close(found.map, ops.anomaly_map(raw, (64, 64)), what="map")


def test_authors_step(case):
    card, backbone, frozen = case
    detector = ikd(backbone)
    state = from_torch("ikd", card.tensors, harness.empty_state(detector, frozen, 64))
    state = state._replace(variables={**state.variables, "mining": {"margins": jnp.full(1, 0.5)}})
    with jax.disable_jit():
        new, info = harness.update(detector, state, frozen, harness.batch_of(card["image"]), double=True)
    harness.close(info["loss"], card["loss"], what="loss")
    harness.close(new.variables["mining"]["margins"][0], card["loss_margin_after"], what="margin")
    card.check_gradients("ikd", harness.gradients(new))
