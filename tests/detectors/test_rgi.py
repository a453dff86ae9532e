"""RGI and R-RGI: no code of the authors runs beside it, so NumPy in float64 has the paper's formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import losses
from iadjax.detectors.gan.rgi import GREY, rgi
from iadjax.errors import UserError
from iadjax.nn.dcgan import Decoder, Discriminator
from iadjax.nn.diffusion import noise_like
from tests.direct import batch_of, spec_for
from tests.parity.harness import empty_state

pytestmark = pytest.mark.usefixtures("plain_convolutions")

# most of the time would go into compiling
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

# two chunks of first drawings, of which the second one is used in part
SMALL = {"width": 2, "latent": 3, "starts": 60, "iterations": 2, "sparsity": 0.2, "realism": 0.5, "top": 0.1}
DECODER, CRITIC = Decoder(2, 8), Discriminator(2, norm=False)
IMAGE = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
X = 2 * IMAGE - 1


def adam(rate, gradients):
    """What Adam adds up to (Kingma & Ba, ICLR 2015, algorithm 1)."""
    first, second, moved = 0.0, 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        moved = moved - rate * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    return moved


@pytest.fixture(scope="module")
def state():
    # vectors are positive, as running variances have to be
    rng = np.random.default_rng(1)
    drawn = lambda leaf: rng.uniform(0.5, 1, leaf.shape) if leaf.ndim == 1 else 0.5 * rng.standard_normal(leaf.shape)  # noqa: E731
    state = empty_state(rgi(**SMALL), {}, 8)
    networks = [jax.tree.map(lambda leaf: jnp.asarray(drawn(leaf), leaf.dtype), each.variables) for each in state[:2]]
    return type(state)(
        *(each._replace(variables=new) for each, new in zip(state[:2], networks, strict=True)), jnp.uint32([3, 4])
    )


@pytest.fixture(scope="module")
def draw(state):
    """G of latent vectors, and the critic's score of what it draws, in float64."""

    def outputs(z):
        drawn = DECODER.apply(state.generator.variables, z, None)
        return drawn, CRITIC.apply(state.critic.variables, drawn, None)[0]

    compiled = quickly(outputs)
    return lambda z: [np.asarray(each, np.float64) for each in compiled(jnp.float32(z))]


@pytest.fixture(scope="module")
def start(state, draw):
    """Of the 60 latent vectors, for each image the nearest one."""
    z = np.asarray(jax.random.normal(jax.random.wrap_key_data(state.key), (2, 50, 3))).reshape(-1, 3)[:60]
    return z[((draw(z)[0][None] - X[:, None]) ** 2).sum((2, 3, 4)).argmin(axis=1)]


def masks_map(mask):
    return (np.abs(mask) * np.array(GREY)).sum(-1)


def predict(state, **options):
    detector = rgi(**{**SMALL, **options})
    return quickly(detector.predict)(state, {}, batch_of(detector, {}, IMAGE))


def test_the_mask_takes_what_the_drawing_does_not_explain(state, draw, start):
    """Eq. 3, while the latent vector hardly moves."""
    found = predict(state, latent_rate=1e-9, iterations=6)
    squared, mask, gradients = (X - draw(start)[0]) ** 2, np.zeros(X.shape), []
    for _ in range(6):
        gradients.append(-2 * (1 - mask) * squared + 0.2 * np.sign(mask))
        mask = adam(0.1, gradients)
    np.testing.assert_allclose(found.map, masks_map(mask), rtol=1e-3, atol=1e-4)
    largest = np.sort(np.asarray(found.map).reshape(2, -1))[:, -6:]
    np.testing.assert_allclose(found.score, largest.mean(axis=1), rtol=1e-5)


def test_the_latent_vector_goes_downhill(state, draw, start):
    """Two iterations: the second one's mask sees where the first one has moved the latent vector."""

    def objective(z):
        drawn, score = draw(z)
        return ((X - drawn) ** 2).sum((1, 2, 3)) - 0.5 * score

    slope = np.stack([objective(start + h) - objective(start - h) for h in 1e-2 * np.eye(3)], axis=1)
    assert np.abs(slope).min() > 1e-3
    # the first step of Adam has the length of its rate
    residuals = [X - draw(z)[0] for z in (start, start - 0.3 * np.sign(slope))]
    first = -2 * residuals[0] ** 2
    mask = adam(0.1, [first])
    mask = adam(0.1, [first, -2 * (1 - mask) * residuals[1] ** 2 + 0.2 * np.sign(mask)])
    np.testing.assert_allclose(predict(state, latent_rate=0.3).map, masks_map(mask), rtol=1e-3, atol=1e-4)


def test_r_rgi_moves_the_generator_from_an_iteration_on(state):
    plain = predict(state, iterations=3)
    waiting = predict(state, iterations=3, relaxed=True, generator_rate=0.1, relaxed_from=3)
    np.testing.assert_allclose(waiting.map, plain.map, rtol=1e-3, atol=1e-4)
    # the last mask sees what the second iteration has done
    moving = predict(state, iterations=3, relaxed=True, generator_rate=0.1, relaxed_from=1)
    assert np.abs(np.asarray(moving.map) - np.asarray(plain.map)).max() > 1e-3


def test_the_losses_of_one_update(state):
    detector, key = rgi(**SMALL, penalty=7.0, drift=0.1), jax.random.key(5)
    _, info = quickly(detector.phases(None)[0].update)(key, state, {}, batch_of(detector, {}, IMAGE))
    keys, valid = jax.random.split(key), np.ones(2, bool)

    def outputs(state):
        z, mixing = noise_like(keys[0], jnp.zeros((2, 3))), jax.random.uniform(keys[1], (2,))
        drawn, _ = DECODER.apply(state.generator.variables, z, valid, mutable="batch_stats")
        judge = lambda x: CRITIC.apply(state.critic.variables, x, None)[0]  # noqa: E731
        return judge(X), judge(drawn), losses.gradient_penalty(judge, X, drawn, mixing)

    real, fake, slope = (np.asarray(each, np.float64) for each in quickly(outputs)(state))
    np.testing.assert_allclose(info["loss"], -fake.mean(), rtol=1e-4)
    np.testing.assert_allclose(info["distance"], (real - fake).mean(), rtol=1e-3, atol=1e-5)
    truth = fake.mean() - real.mean() + 7 * slope.mean() + 0.1 * (real**2).mean()
    np.testing.assert_allclose(info["loss_critic"], truth, rtol=1e-4)


@pytest.mark.parametrize("shape", [(16, 32), (24, 24), (4, 4)])
def test_sides_that_are_no_power_of_two_are_refused(shape):
    detector = rgi(**SMALL)
    with pytest.raises(UserError, match="side is a power of two, at least 8; got"):
        detector.init(jax.random.key(0), {}, spec_for(detector, {}, 2, (*shape, 3)))
