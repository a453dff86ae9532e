"""OCR-GAN: the parts of an image, channel selection, images with a pasted piece, losses, score and refusals; tests/parity has
the authors' numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from iadjax import ops
from iadjax.detectors.gan.ocrgan import ChannelSelection, Discriminator, Generator, frequencies, ocrgan
from iadjax.errors import UserError
from tests.direct import batch_of, spec_for
from tests.parity.harness import empty_state

pytestmark = pytest.mark.usefixtures("plain_convolutions")

# most of the time would go into compiling
quickly = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})

DETECTOR = ocrgan(width=2, discriminator_width=2, latent=3, cutout=4, feature_fraction=0.3)
GENERATOR, DISCRIMINATOR = Generator(2), Discriminator(2, 3)
RNG = np.random.default_rng(0)
IMAGE = (RNG.integers(0, 256, (2, 8, 8, 3)) / 255).astype(np.float32)
X, VALID = 2 * IMAGE - 1, np.ones(2, bool)


@pytest.fixture(scope="module")
def state():
    # vectors are positive, as running variances have to be
    rng = np.random.default_rng(1)
    drawn = lambda leaf: rng.uniform(0.5, 1, leaf.shape) if leaf.ndim == 1 else 0.3 * rng.standard_normal(leaf.shape)  # noqa: E731
    state = empty_state(DETECTOR, {}, 8)
    networks = (jax.tree.map(lambda leaf: jnp.asarray(drawn(leaf), leaf.dtype), each.variables) for each in state)
    return type(state)(*(each._replace(variables=new) for each, new in zip(state, networks, strict=True)))


@pytest.fixture(scope="module")
def updated(state):
    """The state after one update, what was logged, and the images with a pasted piece."""
    rng, phase = np.random.default_rng(3), DETECTOR.phases(spec_for(DETECTOR, {}, 2, (8, 8, 3)))[0]
    pasted = np.stack([phase.augment(rng, each, None)["pasted"] for each in IMAGE])
    batch = batch_of(DETECTOR, {}, IMAGE, extra={"pasted": pasted})
    return *quickly(phase.update)(jax.random.key(1), state, {}, batch), pasted


def test_a_pyramid_filters_and_interpolates():
    taps = np.array([1, 4, 6, 4, 1]) / 16
    filtered = x = RNG.random((8, 6))
    for axis in (0, 1):
        filtered = ndimage.correlate1d(filtered, taps, axis, mode="mirror")
    down = np.asarray(ops.pyramid_down(jnp.float32(x)[None, ..., None])[0, ..., 0])
    np.testing.assert_allclose(down, filtered[::2, ::2], rtol=1e-5)
    sparse = np.zeros((8, 6))
    sparse[::2, ::2] = down
    for axis in (0, 1):
        sparse = ndimage.correlate1d(sparse, 2 * taps, axis, mode="mirror")
    up = np.asarray(ops.pyramid_up(jnp.asarray(down)[None, ..., None])[0, ..., 0])
    # the last row and column have a border of their own
    np.testing.assert_allclose(up[:-2, :-2], sparse[:-2, :-2], rtol=1e-5)
    np.testing.assert_allclose(up[-1, -1], down[-1, -1], rtol=1e-5)


def test_both_parts_sum_to_the_image_unless_high_frequencies_saturate():
    high, low = frequencies(IMAGE)
    np.testing.assert_allclose(high + low, IMAGE, atol=1e-6)
    assert np.min(high) < -0.1
    lost, same = frequencies(IMAGE, saturated=True)
    np.testing.assert_array_equal(same, low)
    np.testing.assert_allclose(lost + low, np.maximum(IMAGE, low), atol=1e-6)


def test_channels_are_divided_between_the_branches(state):
    x, y = (jnp.float32(RNG.standard_normal((2, 4, 4, 2))) for _ in range(2))
    params = state.generator.variables["params"]["select_0"]
    parts = {name: {key: np.asarray(each, np.float64) for key, each in part.items()} for name, part in params.items()}
    code = np.asarray(x + y, np.float64).mean((1, 2)) @ parts["fc"]["kernel"] + parts["fc"]["bias"]
    assert code.shape == (2, 32)
    first, second = (code @ parts[name]["kernel"] + parts[name]["bias"] for name in ("fcs_0", "fcs_1"))
    weight = 1 / (1 + np.exp(second - first))[:, None, None]
    found = quickly(ChannelSelection().apply)({"params": params}, x, y)
    for ours, truth in zip(found, (x * weight, y * (1 - weight)), strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-4, atol=1e-6)


def test_channel_selection_is_trained(state, updated):
    before, after = (each.generator.variables["params"]["select_0"]["fc"]["kernel"] for each in (state, updated[0]))
    assert np.abs(after - before).max() > 1e-5


def test_a_pasted_piece_and_a_black_square():
    image = RNG.uniform(0.1, 1, (32, 32, 3)).astype(np.float32)
    augment = ocrgan(cutout=10).phases(None)[0].augment
    for seed in range(5):
        pasted = augment(np.random.default_rng(seed), image, None)["pasted"]
        assert pasted.dtype == np.float32 and pasted.max() <= 1
        rows, columns = np.nonzero((pasted == 0).all(-1))
        # the square's centre is in the image
        assert 25 <= len(rows) <= 100 and len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert (pasted != image).any(-1).sum() > len(rows)
    assert image.min() >= 0.1


def test_the_losses_of_one_update(state, updated):
    _, info, pasted = updated
    high, low = frequencies(IMAGE)
    # images with a pasted piece have the mean and the range of the others
    np.testing.assert_allclose(2 * high + 2 * low - 1, X, atol=1e-6)

    def outputs(state):
        fakes, _ = GENERATOR.apply(state.generator.variables, 2 * high, 2 * low - 1, VALID, mutable="batch_stats")
        judge = lambda x: DISCRIMINATOR.apply(state.discriminator.variables, x, VALID, mutable="batch_stats")[0]  # noqa: E731
        return sum(fakes), *(judge(each) for each in (X, sum(fakes), 2 * pasted - 1))

    restored, *judged = quickly(outputs)(state)
    (real, features), (fake, again), (other, _) = ([np.asarray(each, np.float64) for each in pair] for pair in judged)
    softplus = lambda x: np.log1p(np.exp(x)).mean()  # noqa: E731
    latent, contextual = np.mean((features - again) ** 2), np.abs(X - np.asarray(restored)).mean()
    np.testing.assert_allclose(info["loss_latent"], latent, rtol=1e-4)
    np.testing.assert_allclose(info["loss"], softplus(-fake) + 50 * contextual + latent, rtol=1e-5)
    np.testing.assert_allclose(
        info["loss_discriminator"], softplus(-real) + softplus(fake) + softplus(other) + latent, rtol=1e-5
    )


def test_the_score_is_the_error_of_image_and_features(state):
    def outputs(state):
        high, low = frequencies(IMAGE)
        restored = sum(GENERATOR.apply(state.generator.variables, 2 * high, 2 * low - 1, None))
        judge = lambda x: DISCRIMINATOR.apply(state.discriminator.variables, x, None)[1]  # noqa: E731
        return DETECTOR.predict(state, {}, batch_of(DETECTOR, {}, IMAGE)), restored, judge(X), judge(restored)

    found, restored, *features = quickly(outputs)(state)
    np.testing.assert_allclose(found.map, np.mean((X - np.asarray(restored)) ** 2, axis=-1), rtol=1e-4, atol=1e-6)
    truth = 0.7 * np.asarray(found.map).mean((1, 2)) + 0.3 * np.mean((np.subtract(*features)) ** 2, axis=1)
    np.testing.assert_allclose(found.score, truth, rtol=1e-4)


@pytest.mark.parametrize("shape", [(16, 32), (24, 24), (4, 4)])
def test_sides_that_are_no_power_of_two_are_refused(shape):
    with pytest.raises(UserError, match="side is a power of two, at least 8; got"):
        DETECTOR.init(jax.random.key(0), {}, spec_for(DETECTOR, {}, 2, (*shape, 3)))
