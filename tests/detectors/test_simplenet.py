"""SimpleNet: initial weights, optimisers and refusals; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from iadjax.detectors.one_class.simplenet import simplenet
from iadjax.errors import UserError
from iadjax.nn.discriminator import Adaptor, Discriminator
from tests import tiny
from tests.direct import batch_of, phases, spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")

DEPTH, HIDDEN = 12, 7


def built(**options):
    backbone = tiny.bank()
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    sizes = {"pretrain_dimension": 16, "target_dimension": DEPTH, "hidden": HIDDEN}
    detector = simplenet(backbone, **{**sizes, **options})
    return (
        detector,
        frozen,
        jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec_for(detector, frozen, 4, (32, 32, 3))),
    )


def test_weights_are_drawn_by_xavier_s_rule_and_biases_by_pytorch_s():
    x = jnp.zeros((1, 1, 1, 256))
    adaptor = jax.jit(Adaptor().init)(jax.random.key(0), x)["params"]["layers_0fc"]
    discriminator = jax.jit(Discriminator(512).init)(jax.random.key(1), x)["params"]
    for dense, outputs in ((adaptor, 256), (discriminator["body_block1_0"], 512)):
        assert np.std(dense["kernel"]) == pytest.approx((2 / (256 + outputs)) ** 0.5, rel=0.05)
        assert 0.9 / 16 < np.abs(dense["bias"]).max() <= 1 / 16
    assert "bias" not in discriminator["tail"]


def test_each_network_has_its_own_optimizer():
    detector, frozen, state = built(adaptor_rate=0.0, discriminator_rate=1e-3)
    image = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    batch = batch_of(detector, frozen, image, valid=np.ones(2, bool))
    new, _ = jax.jit(phases(detector)[0].update)(jax.random.key(0), state, frozen, batch)
    before, after = state.variables["params"], new.variables["params"]
    assert np.array_equal(before["adaptor"]["layers_0fc"]["kernel"], after["adaptor"]["layers_0fc"]["kernel"])
    moved = optax.tree.max(optax.tree.sub(after["discriminator"], before["discriminator"]))
    assert 0.5e-3 < moved < 2e-3
    assert not np.array_equal(
        state.variables["batch_stats"]["body_block1_1"]["mean"], new.variables["batch_stats"]["body_block1_1"]["mean"]
    )


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="noise_std"):
        built(noise_std=0.0)
    with pytest.raises(UserError, match="patch_size must be a positive odd number"):
        built(patch_size=2)
