"""GANomaly: both scores, the discriminator that begins anew, refusals; tests/parity has the losses and anomalib's numbers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.families import adversarial
from iadjax.detectors.gan.ganomaly import Generator, ganomaly
from iadjax.errors import UserError
from iadjax.nn.transposed import ConvTranspose
from tests.direct import batch_of, predict, spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")

SMALL = {"width": 2, "latent": 3}
IMAGE = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)


def spec(side=16):
    return spec_for(ganomaly(**SMALL), {}, 2, (side, side, 3))


@pytest.fixture(scope="module")
def state():
    return jax.jit(lambda key: ganomaly(**SMALL).init(key, {}, spec()))(jax.random.key(0))


def test_a_transposed_convolution_puts_a_kernel_at_every_position():
    rng = np.random.default_rng(0)
    x, kernel = rng.standard_normal((2, 3, 5, 4)), rng.standard_normal((4, 4, 4, 6))
    truth = np.zeros((2, 6 + 2, 10 + 2, 6))
    for i in range(3):
        for j in range(5):
            truth[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += np.einsum("bc,hwco->bhwo", x[:, i, j], kernel)
    found = ConvTranspose(6, bias=False).apply({"params": {"transposed_kernel": jnp.float32(kernel)}}, jnp.float32(x))
    np.testing.assert_allclose(found, truth[:, 1:-1, 1:-1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("score", "power"), [("squared", 2), ("absolute", 1)])
def test_the_score_is_the_distance_of_the_latent_vectors(state, score, power):
    _, z, again = Generator(2, 3).apply(state.generator.variables, 2 * IMAGE - 1, None)
    found = predict(ganomaly(score=score, **SMALL), state, {}, IMAGE)
    assert found.map is None
    distance = np.abs(np.asarray(z, np.float64) - np.asarray(again, np.float64))
    np.testing.assert_allclose(found.score, (distance**power).mean(axis=1), rtol=1e-5)


@pytest.mark.parametrize("collapsed", [False, True])
def test_a_discriminator_that_has_won_begins_anew(state, collapsed, monkeypatch):
    monkeypatch.setattr(adversarial, "COLLAPSED", 100.0 if collapsed else 0.0)
    detector = ganomaly(**SMALL)
    before = state.discriminator.variables["params"]
    new, _ = jax.jit(detector.phases(spec())[0].update)(jax.random.key(7), state, {}, batch_of(detector, {}, IMAGE))
    after = new.discriminator.variables["params"]
    moved = max(float(jnp.abs(a - b).max()) for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True))
    # one step of Adam moves a weight by its rate at most; weights drawn anew differ by their deviation
    assert moved > 0.02 if collapsed else 0 < moved < 1e-3
    if collapsed:
        assert np.std(after["features_2"]["kernel"]) == pytest.approx(0.02, rel=0.3)
    # the optimiser goes on
    assert int(new.discriminator.optimizer[0].count) == 1


def test_weights_are_drawn_as_the_authors_draw_them():
    params = nn.unbox(Generator(16, 8).init(jax.random.key(0), IMAGE[:1], None))["params"]
    assert np.std(params["encoder1"]["pyramid_32_conv"]["kernel"]) == pytest.approx(0.02, rel=0.05)
    scale = params["decoder"]["initial_32_batchnorm"]["scale"]
    assert np.mean(scale) == pytest.approx(1, abs=0.02) and 0.01 < np.std(scale) < 0.03


@pytest.mark.parametrize("shape", [(16, 32), (24, 24), (8, 8)])
def test_sides_that_are_no_power_of_two_are_refused(shape):
    detector = ganomaly(**SMALL)
    with pytest.raises(UserError, match="side is a power of two, at least 16; got"):
        detector.init(jax.random.key(0), {}, spec_for(detector, {}, 2, (*shape, 3)))


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="score must be 'squared' or 'absolute'"):
        ganomaly(score="l2")
