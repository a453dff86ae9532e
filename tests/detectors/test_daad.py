"""DAAD: addresses and blocks in NumPy float64, the losses and the score from the networks' outputs, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.autoencoder.daad import MemoryUNet, daad
from iadjax.errors import UserError
from iadjax.nn.dcgan import Discriminator
from iadjax.nn.memory import BlockMemory, addresses
from tests.direct import batch_of, predict, spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")

SMALL = {"width": 2, "block_sides": (2, 1), "items": 5, "discriminator_width": 2}
IMAGE = np.random.default_rng(0).random((3, 16, 16, 3), np.float32)
KEY = jax.random.key(0)


def written_out(query, items, shrink):
    """The weights of one query, item by item."""
    cosines = [query @ item / np.linalg.norm(query) / np.linalg.norm(item) for item in items]
    weights = np.exp(cosines) / np.exp(cosines).sum()
    weights = np.array([max(w - shrink, 0) * w / abs(w - shrink) for w in weights])
    return weights / weights.sum()


def test_a_block_is_read_from_the_items_that_are_like_it():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, 4, 6, 4))
    memory = BlockMemory(items=7, side=2, groups=2, shrink=0.12)
    variables = memory.init(KEY, jnp.float32(x))
    items = np.asarray(variables["params"]["items"], np.float64)
    assert items.shape == (2, 7, 8)
    truth, entropy = np.zeros_like(x), np.zeros((2, 2, 3, 2))
    for b, i, j, g in np.ndindex(2, 2, 3, 2):
        block = np.s_[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, 2 * g : 2 * g + 2]
        weights = written_out(x[block].ravel(), items[g], 0.12)
        assert 0 < np.count_nonzero(weights) < 7
        truth[block] = (weights @ items[g]).reshape(2, 2, 2)
        entropy[b, i, j, g] = -sum(w * np.log(w) for w in weights if w)
    read, found = memory.apply(variables, jnp.float32(x))
    np.testing.assert_allclose(read, truth, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found, entropy.mean((1, 2, 3)), rtol=1e-5)


def test_an_item_that_a_query_equals_counts_most():
    items = np.eye(3, dtype=np.float32)
    weights = np.asarray(addresses(jnp.asarray(4 * items[:1]), jnp.asarray(items), 0.25))
    # exp(1) against exp(0) twice: 0.576 and 0.212, which falls below 0.25
    np.testing.assert_allclose(weights, [[1, 0, 0]])
    np.testing.assert_allclose(addresses(jnp.asarray(items[:1]), jnp.asarray(items), 0.0)[0, 0], np.e / (np.e + 2), rtol=1e-6)


@pytest.fixture(scope="module")
def fitted():
    detector = daad(**SMALL)
    spec = spec_for(detector, {}, 3, (16, 16, 3))
    state = jax.jit(lambda key: detector.init(key, {}, spec))(KEY)
    batch = batch_of(detector, {}, IMAGE, valid=[True, True, False])
    (phase,) = detector.phases(spec)
    _, info = jax.jit(phase.update)(KEY, state, {}, batch)
    return state, info, predict(detector, state, {}, IMAGE)


def softplus(x):
    return np.logaddexp(0, np.asarray(x, np.float64))


def test_losses_are_those_of_the_real_rows(fitted):
    state, info, _ = fitted
    x, valid = jnp.asarray(2 * IMAGE - 1), np.array([True, True, False])
    (restored, entropy), _ = MemoryUNet(2, (2, 1), 5, 1, 0.0025).apply(
        state.generator.variables, x, valid, mutable="batch_stats"
    )
    judge = lambda x: Discriminator(2).apply(state.discriminator.variables, x, valid, mutable="batch_stats")[0][0]  # noqa: E731
    error = ((np.asarray(x, np.float64) - restored) ** 2).mean((1, 2, 3))[:2].mean()
    adversarial = softplus(-judge(restored))[:2].mean()
    np.testing.assert_allclose(info["loss_restored"], error, rtol=1e-5)
    np.testing.assert_allclose(info["loss"], error + 2e-4 * entropy[:2].mean() + 1e-2 * adversarial, rtol=1e-5)
    cross_entropy = (softplus(-judge(x)) + softplus(judge(restored)))[:2].mean() / 2
    np.testing.assert_allclose(info["loss_discriminator"], cross_entropy, rtol=1e-5)


def test_the_score_has_the_image_and_the_discriminators_features(fitted):
    state, _, found = fitted
    x = jnp.asarray(2 * IMAGE - 1)
    restored, _ = MemoryUNet(2, (2, 1), 5, 1, 0.0025).apply(state.generator.variables, x, None)
    one, two = (Discriminator(2).apply(state.discriminator.variables, each, None)[1] for each in (x, restored))
    error = (np.asarray(x, np.float64) - restored) ** 2
    np.testing.assert_allclose(found.map, error.mean(-1), atol=1e-6)
    features = ((np.asarray(one, np.float64) - two) ** 2).mean((1, 2, 3))
    np.testing.assert_allclose(found.score, error.mean((1, 2, 3)) + 0.01 * features, rtol=1e-5)


def test_bad_options_and_sizes_are_refused():
    for options, match in (
        ({"block_sides": ()}, "block_sides must be positive"),
        ({"groups": 3, "width": 4}, "groups must divide"),
        ({"shrink": 1.0}, "shrink"),
    ):
        with pytest.raises(UserError, match=match):
            daad(**options)
    detector = daad(**SMALL)
    with pytest.raises(UserError, match="square images"):
        detector.init(KEY, {}, spec_for(detector, {}, 2, (16, 32, 3)))
    detector = daad(**{**SMALL, "block_sides": (3,)})
    with pytest.raises(UserError, match="do not divide a grid of 8"):
        detector.init(KEY, {}, spec_for(detector, {}, 2, (16, 16, 3)))
