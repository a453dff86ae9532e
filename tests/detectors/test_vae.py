"""VAE: the bound and its gradients against formulas in NumPy float64, and refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.autoencoder.vae import MAPS, VariationalAutoencoder, vae
from iadjax.errors import UserError
from tests.direct import batch_of, spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")

KEY, OPTIONS = jax.random.key(0), {"width": 2, "latent": 3, "beta": 0.5, "sigma": 0.0}
NETWORK = VariationalAutoencoder(2, 3)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((2, 64, 64, 3), np.float32)


@pytest.fixture(scope="module")
def state():
    detector = vae(**OPTIONS)
    return jax.jit(lambda: detector.init(KEY, {}, spec_for(detector, {}, 2, (64, 64, 3))))()


@pytest.fixture(scope="module")
def of_noise(state):
    """The restored image, mean and log variance of images and noise, float64."""
    program = jax.jit(NETWORK.apply)

    def call(images, noise):
        return [np.asarray(each, np.float64) for each in program(state.variables, images, noise)]

    return call


def kl(mean, log_variance):
    return 0.5 * (mean**2 + np.exp(log_variance) - log_variance - 1).sum(-1)


def test_the_loss_is_the_negative_bound_of_one_draw(images, state, of_noise):
    detector = vae(**OPTIONS)
    (phase,) = detector.phases(spec_for(detector, {}, 2, (64, 64, 3)))
    _, info = jax.jit(phase.update)(KEY, state, {}, batch_of(detector, {}, images, valid=[True, False]))
    restored, mean, log_variance = (each[0] for each in of_noise(images, jax.random.normal(KEY, (2, 3))))
    truth = 0.5 * np.sum((images[0].astype(np.float64) - restored) ** 2) + 0.5 * kl(mean, log_variance)
    np.testing.assert_allclose(info["loss"], truth, rtol=1e-5)
    np.testing.assert_allclose(info["loss_kl"], kl(mean, log_variance), rtol=1e-4)


def test_scores_and_maps(images, state, of_noise):
    """Gradients are held to central differences in float64."""
    detectors = {name: vae(map=name, **OPTIONS) for name in MAPS}
    largest = vae(map="error", score="map", **OPTIONS)
    batch = batch_of(largest, {}, images)._replace(mask=None, label=None)
    both = [*detectors.values(), largest]
    # compiled together, because they share the network
    found = jax.jit(lambda state, batch: [each.predict(state, {}, batch) for each in both])(state, batch)
    *maps, last = found
    maps = dict(zip(MAPS, maps, strict=True))
    code = np.zeros((2, 3), np.float32)
    restored, mean, log_variance = of_noise(images, code)
    error = np.abs(images.astype(np.float64) - restored)
    bound = 0.5 * (error**2).sum((1, 2, 3)) + 0.5 * kl(mean, log_variance)
    for each in maps.values():
        np.testing.assert_allclose(each.score, bound, rtol=1e-5)
    np.testing.assert_allclose(maps["error"].map, error.mean(-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(last.score, error.mean(-1).max((1, 2)), rtol=1e-4)

    def double(name, pixel):
        """|d / dx| of the bound or the KL divergence at the channels of one pixel of the first image, in float64."""
        slopes = []
        with jax.enable_x64(True):
            variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), state.variables)
            program = jax.jit(NETWORK.apply)
            for channel in range(3):
                values = []
                for step in (1e-5, -1e-5):
                    moved = images[:1].astype(np.float64)
                    moved[0, *pixel, channel] += step
                    y, m, v = (np.asarray(part) for part in program(variables, moved, code[:1].astype(np.float64)))
                    value = kl(m, v)[0]
                    values.append(0.5 * np.sum((moved - y) ** 2) + 0.5 * value if name == "elbo" else value)
                slopes.append(abs(values[0] - values[1]) / 2e-5)
        return np.array(slopes)

    for pixel in ((5, 7), (20, 51)):
        np.testing.assert_allclose(maps["elbo"].map[0][pixel], double("elbo", pixel).mean(), rtol=1e-3)
        slope = double("kl", pixel)
        np.testing.assert_allclose(maps["kl"].map[0][pixel], slope.mean(), rtol=1e-3)
        np.testing.assert_allclose(maps["combined"].map[0][pixel], (error[0][pixel] * slope).mean(), rtol=1e-3)


def test_bad_options_are_refused():
    for options, match in (({"map": "grad"}, "map must be one of"), ({"score": "max"}, "score"), ({"beta": -1.0}, "beta")):
        with pytest.raises(UserError, match=match):
            vae(**options)
    detector = vae()
    for shape in ((64, 128, 3), (96, 96, 3)):
        with pytest.raises(UserError, match="vae needs squares"):
            detector.init(KEY, {}, spec_for(detector, {}, 2, shape))
