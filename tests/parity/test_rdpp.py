"""RD++: the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import backbones, ops
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.teacher_student.rdpp import rdpp
from tests.parity import harness
from tests.parity.harness import Card

LAYERS = ("layer1", "layer2", "layer3")


def test_authors():
    card = Card("rdpp")
    backbone = backbones.backbone("resnet18")
    frozen = {"backbone": backbones.convert(backbone, card.part("encoder."), LAYERS)}
    detector = rdpp(backbone)
    state = from_torch("rdpp", card.tensors, harness.empty_state(detector, frozen, 64))
    found = harness.predict(detector, state, frozen, card["image"])
    for i in range(2):
        card.check(f"map_blur{i}", found.map[i])
        card.check(f"score{i}", found.score[i : i + 1])
    batch = harness.batch_of(card["image"], noisy=card["image_noise"])
    # their term of transport is 0 in the card too: a batch against itself in another order
    assert not any(card[f"loss_ssot{level}"] for level in (1, 2, 3))
    new, info = harness.update(detector, state, frozen, batch, double=True)
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("rdpp", harness.gradients(new, beta1=0.5))


def test_sinkhorn_divergence_is_geomlosss():
    card = Card("rdpp")
    a, b, c, d = (jnp.asarray(card[f"input/ssot_{letter}"]) for letter in "abcd")
    found = ops.sinkhorn_divergence(jax.nn.softmax(a), jax.nn.softmax(b), diameter=2.0)
    harness.close(found, card["loss_sinkhorn_5x12"], what="of probabilities")
    harness.close(ops.sinkhorn_divergence(c, d), card["loss_sinkhorn_raw"], what="raw")
    value, slope = jax.value_and_grad(lambda x: ops.sinkhorn_divergence(x, x[::-1]))(a)
    assert abs(float(value)) < 1e-6 and np.abs(slope).max() < 1e-6
