"""AnoDDPM: restoring step by step, its options; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.diffusion.anoddpm import anoddpm
from iadjax.errors import UserError
from iadjax.nn.adm import AdmUNet, default_multipliers
from iadjax.nn.diffusion import ancestral_step, ddim_coefficients, ddim_step, noise_schedule, noised
from tests.direct import predict, spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")

NETWORK = {"width": 4, "multipliers": (1,), "blocks": 1, "attention": (), "heads": 1}
IMAGE = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)


@pytest.fixture(scope="module")
def state():
    """Drawn weights everywhere: those that begin at zero would hide the network."""
    detector = anoddpm(**NETWORK)
    spec = spec_for(detector, {}, 2, (16, 16, 3))
    state = jax.eval_shape(lambda: detector.init(jax.random.key(0), {}, spec))
    rng = np.random.default_rng(0)
    average = jax.tree.map(lambda leaf: jnp.asarray(0.2 * rng.standard_normal(leaf.shape), leaf.dtype), state.network.average)
    return state._replace(
        network=state.network._replace(average=average, trained=()), key=jax.random.key_data(jax.random.key(5))
    )


@pytest.fixture(scope="module")
def find(state):
    network = AdmUNet(4, (1,), 1, (), 1)
    return jax.jit(lambda x, t: network.apply({"params": state.network.average}, x, jnp.full(2, t)))


@pytest.mark.parametrize(("noise", "sampling_steps", "samples"), [("simplex", 0, 1), ("gaussian", 2, 2)])
def test_maps_are_those_of_one_step_after_the_other(state, find, noise, sampling_steps, samples):
    options = {"noise": noise, "sampling_steps": sampling_steps, "samples": samples, "start": 4, "octaves": 2, "top": 0.1}
    found = predict(anoddpm(**NETWORK, **options), state, {}, IMAGE)
    schedule, x, total = noise_schedule(1000), jnp.asarray(2 * IMAGE - 1), 0.0

    def draw(key, t):
        if noise == "simplex":
            return ops.simplex_field(key, (16, 16), jnp.int32(t), 2)[None]
        return jax.random.normal(key, (16, 16, 3))[None]

    for sample in range(samples):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), sample)
        y = noised(schedule, x, jnp.int32(3), draw(jax.random.fold_in(key, 1000), 3))
        for t, then in ((3, 0), (0, -1)) if sampling_steps else ((3, 2), (2, 1), (1, 0), (0, -1)):
            more = draw(jax.random.fold_in(key, t), t)
            if sampling_steps:
                left = 1.0 if then < 0 else schedule.alpha_bar[then]
                (row,) = ddim_coefficients(schedule.alpha_bar[[t]], [left], 1.0)
                y = ddim_step(jnp.asarray(row, jnp.float32), y, find(y, t), more)
            else:
                y = ancestral_step(schedule, y, jnp.int32(t), find(y, t), more)
        total = total + y / samples
    maps = np.mean((np.asarray(total, np.float64) - np.asarray(x)) ** 2, axis=-1)
    np.testing.assert_allclose(found.map, maps, rtol=1e-3, atol=1e-6)
    largest = np.sort(maps.reshape(2, -1), axis=1)[:, -25:]
    np.testing.assert_allclose(found.score, largest.mean(axis=1), rtol=1e-3)


def test_levels_follow_from_the_side_of_the_images():
    assert default_multipliers(256) == (1, 1, 2, 2, 4, 4) and default_multipliers(48) == (1, 2, 3, 4)
    detector = anoddpm(width=4)
    with pytest.raises(UserError, match="images of 20 x 20 cannot be halved 3 times, .* a multiple of 8"):
        detector.init(jax.random.key(0), {}, spec_for(detector, {}, 2, (20, 20, 3)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"noise": "perlin"}, "noise must be 'simplex' or 'gaussian'"),
        ({"start": 2000}, "at most times=1000"),
        ({"sampling_steps": 300}, "sampling_steps at most start"),
        ({"schedule": "quadratic"}, "there is no noise schedule 'quadratic'"),
    ],
)
def test_bad_options_are_refused(options, sentence):
    with pytest.raises(UserError, match=sentence):
        anoddpm(**options)
