"""Score-based: there is no code of the authors, so NumPy in float64 has the formulas of the SDE, the sampler and the maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, ndimage

from iadjax.detectors.diffusion.score_based import score_based
from iadjax.errors import UserError
from iadjax.nn.adm import AdmUNet
from iadjax.nn.diffusion import noise_like
from iadjax.nn.sde import corrector_step, noise_deviation, predictor_step
from tests.direct import batch_of, spec_for
from tests.parity.harness import empty_state

pytestmark = pytest.mark.usefixtures("plain_convolutions")

# most of the time would go into compiling
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

SMALL = {"width": 4, "multipliers": (1,), "blocks": 1, "attention": (), "heads": 1, "epochs": 1, "window": 3}
NETWORK = AdmUNet(4, (1,), 1, (), 1)
IMAGE = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
X = 2.0 * IMAGE - 1


def deviation(t):
    return np.sqrt((25.0 ** (2 * t) - 1) / (2 * np.log(25.0)))


@pytest.fixture(scope="module")
def state():
    rng = np.random.default_rng(1)
    state = empty_state(score_based(**SMALL), {}, 8)
    drawn = lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype)  # noqa: E731
    params = jax.tree.map(drawn, state.network.average)
    trained = state.network.trained._replace(variables={"params": params})
    return type(state)(type(state.network)(trained, params), jnp.uint32([3, 4]))


@pytest.fixture(scope="module")
def found(state):
    """The noise that the network finds in images at one time, in float64."""
    compiled = quickly(lambda x, t: -NETWORK.apply({"params": state.network.average}, x, jnp.full(len(x), 1000 * t)))
    return lambda x, t: np.asarray(compiled(jnp.float32(x), jnp.float32(t)), np.float64)


@pytest.fixture(scope="module")
def drawn(state):
    """The noise of a step."""
    key = jax.random.wrap_key_data(state.key)
    return lambda number: np.asarray(jax.random.normal(jax.random.fold_in(key, number), (1, 8, 8, 3)), np.float64)


def predict(state, **options):
    detector = score_based(**{**SMALL, **options})
    return quickly(detector.predict)(state, {}, batch_of(detector, {}, IMAGE))


def windows(maps):
    return ndimage.uniform_filter(maps, (0, 3, 3), mode="constant")


@pytest.mark.parametrize("t", [1e-3, 0.3, 1.0])
def test_the_deviation_is_that_of_the_sde(t):
    truth = np.sqrt(integrate.quad(lambda s: 25.0 ** (2 * s), 0, t)[0])
    assert noise_deviation(t, 25.0) == pytest.approx(truth, rel=1e-9)
    # float32 cancels at small times
    assert float(noise_deviation(jnp.float32(t), 25.0, jnp)) == pytest.approx(truth, rel=1e-4)


def test_predictor_and_corrector_draw_from_a_known_density():
    """Numbers from N(0, 2^2): the score at a deviation d is -x / (4 + d^2)."""
    sizes = jnp.asarray(deviation(np.linspace(1, 1e-5, 201)), jnp.float32)

    def step(i, carry):
        (x, _), keys = carry, jax.random.split(jax.random.fold_in(jax.random.key(0), i))
        noise = [jax.random.normal(each, x.shape) for each in keys]
        x, mean = predictor_step(x, -x / (4 + sizes[i] ** 2), sizes[i], sizes[i + 1], noise[0])
        return corrector_step(x, -x / (4 + sizes[i + 1] ** 2), 0.16, noise[1]), mean

    first = jnp.sqrt(4 + sizes[0] ** 2) * jax.random.normal(jax.random.key(1), (20, 500))
    sample = quickly(lambda x: jax.lax.fori_loop(0, 200, step, (x, x)))(first)[1]
    assert np.std(sample) == pytest.approx(2, rel=0.05) and abs(np.mean(sample)) < 0.1


def test_the_corrector_takes_each_image_for_itself():
    rng = np.random.default_rng(0)
    x, score, noise = (rng.standard_normal((3, 4, 4, 2)) * np.array([1, 10, 0.1])[:, None, None, None] for _ in range(3))
    ratio = np.linalg.norm(noise.reshape(3, -1), axis=1) / np.linalg.norm(score.reshape(3, -1), axis=1)
    length = (2 * (0.2 * ratio) ** 2)[:, None, None, None]
    truth = x + length * score + np.sqrt(2 * length) * noise
    np.testing.assert_allclose(
        corrector_step(*map(jnp.float32, (x, score)), 0.2, jnp.float32(noise)), truth, rtol=1e-4, atol=1e-5
    )


def test_the_map_is_the_noise_that_is_not_found(state, found, drawn):
    scales, maps = (0.01, 0.2), np.zeros((2, 8, 8))
    for number in range(4):
        t = scales[number // 2]
        missing = drawn(number) - found(X + deviation(t) * drawn(number), t)
        maps += ((deviation(t) * missing) ** 2).mean(-1) / 4
    prediction = predict(state, scales=scales, draws=2)
    np.testing.assert_allclose(prediction.map, windows(maps), rtol=1e-3)
    np.testing.assert_allclose(prediction.score, windows(maps).max((1, 2)), rtol=1e-3)


def test_the_sampler_restores_from_the_start(state, found, drawn):
    """Three steps of the predictor, and two of the corrector after each but the last one."""
    times = np.linspace(0.4, 1e-5, 4)
    sizes, x = deviation(times), X + deviation(0.4) * drawn(9)
    for i in range(3):
        variance = sizes[i] ** 2 - sizes[i + 1] ** 2
        mean = x - variance * found(x, times[i]) / sizes[i]
        x = mean + np.sqrt(variance) * drawn(3 * i)
        for j in (1, 2) if i < 2 else ():
            score, noise = -found(x, times[i + 1]) / sizes[i + 1], drawn(3 * i + j)
            norms = [np.sqrt((each**2).sum((1, 2, 3), keepdims=True)) for each in (noise, score)]
            length = 2 * (0.2 * norms[0] / norms[1]) ** 2
            x = x + length * score + np.sqrt(2 * length) * noise
    prediction = predict(state, measure="error", start=0.4, sampling_steps=3, corrections=2, ratio=0.2)
    np.testing.assert_allclose(prediction.map, windows(((mean - X) ** 2).mean(-1)), rtol=2e-3, atol=1e-4)


def test_the_loss_of_one_update(state):
    detector, key = score_based(**SMALL), jax.random.key(5)
    phase = detector.phases(spec_for(detector, {}, 2, (8, 8, 3)))[0]
    new, info = quickly(phase.update)(key, state, {}, batch_of(detector, {}, IMAGE))
    keys = jax.random.split(key)
    t = jax.random.uniform(keys[0], (2,), jnp.float32, 1e-5, 1)
    epsilon = noise_like(keys[1], jnp.float32(X))
    noised = jnp.float32(X + deviation(np.asarray(t, np.float64))[:, None, None, None] * epsilon)
    output = quickly(lambda x, t: NETWORK.apply({"params": state.network.average}, x, t))(noised, 1000 * t)
    # the score is the output over the deviation; Shin's loss
    truth = ((np.asarray(output, np.float64) + epsilon) ** 2).sum((1, 2, 3)).mean()
    np.testing.assert_allclose(info["loss"], truth, rtol=1e-3)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), new.network.average, state.network.average)
    assert 0 < max(jax.tree.leaves(moved)) < 1e-7


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="measure must be 'score' or 'error'"):
        score_based(measure="both")
    for scales in ((), (0.0,), (2.0,), (float("nan"),)):
        with pytest.raises(UserError, match="scales must be times from"):
            score_based(scales=scales)
