"""VT-ADL: the mixture's likelihood, the capsule, the score; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import multivariate_normal

from iadjax import losses
from iadjax.detectors.transformer.vtadl import mixture_nll, vtadl
from iadjax.errors import UserError
from iadjax.nn.capsules import Encoder, Restorer, capsule
from tests.direct import predict, spec_for
from tests.parity import harness

pytestmark = pytest.mark.usefixtures("plain_convolutions")

KEY = jax.random.key(0)
DECODER = {"capsule_side": 4, "widths": (2,), "kernels": (4, 4), "strides": (2, 2), "paddings": (1, 1)}
TINY = {"patch": 4, "dim": 8, "depth": 1, "heads": 2, "hidden": 8, "gaussians": 2, "sigma": 0.0, **DECODER}


def test_the_likelihood_is_that_of_the_mixture():
    """SciPy in float64. The authors' code takes the weighted sum of the components' NLLs, never below the right one."""
    rng = np.random.default_rng(0)
    x, mean, log_variance = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 3, 4, 5)), rng.random((2, 3, 4, 5))
    weights = rng.dirichlet(np.ones(5), (2, 3))
    each = np.array(
        [
            [
                [
                    multivariate_normal(mean[b, n, :, k], np.diag(np.exp(log_variance[b, n, :, k]))).logpdf(x[b, n])
                    for k in range(5)
                ]
                for n in range(3)
            ]
            for b in range(2)
        ]
    )
    arrays = [jnp.asarray(array, jnp.float32) for array in (x, weights, mean, log_variance)]
    np.testing.assert_allclose(mixture_nll(*arrays), -logsumexp(each, axis=-1, b=weights), rtol=1e-5)
    # one constant of four is in the authors' sum
    constants = 1.5 * np.log(2 * np.pi)
    found = np.asarray(mixture_nll(*arrays, proper=False), np.float64)
    np.testing.assert_allclose(found, (weights * -each).sum(-1) - constants, rtol=1e-5)
    assert np.all(found + constants >= np.asarray(mixture_nll(*arrays)) - 1e-4)


def test_the_capsule_is_squashed():
    rng = np.random.default_rng(0)
    tokens, weights = rng.normal(size=(2, 3, 16)), rng.normal(size=(6, 5, 8))
    s = (tokens.reshape(2, 6, 1, 8) * weights[None]).sum((1, 3))
    length = np.linalg.norm(s, axis=1, keepdims=True)
    found = capsule(jnp.asarray(tokens, jnp.float32), jnp.asarray(weights, jnp.float32))
    np.testing.assert_allclose(found, length**2 / (1 + length**2) * s / length, rtol=1e-4)
    # no tokens, no direction, and a finite gradient
    gradient = jax.grad(lambda x: capsule(x, jnp.asarray(weights, jnp.float32)).sum())(jnp.zeros((1, 3, 16)))
    assert np.all(np.isfinite(gradient))


def test_the_decoder_of_the_authors_makes_512_pixels():
    network = Restorer((8, 8), (16, 32, 32, 16, 8), (3, 9, 7, 9, 6, 11), (2, 3, 5, 2, 1, 1), (1, 1, 1, 0, 0, 0))
    tokens = jax.ShapeDtypeStruct((1, 64, 512), jnp.float32)
    image, variables = jax.eval_shape(lambda x: network.init_with_output(KEY, x), tokens)
    assert image.shape == (1, 512, 512, 3)
    assert variables["params"]["capsule"].shape == (4096, 512, 8)
    harness.empty_state(vtadl(), {}, 512)


def test_the_score_falls_with_the_similarity():
    """The authors' code adds the SSIM to the score; here it is subtracted."""
    detector = vtadl(**TINY)
    spec = spec_for(detector, {}, 2, (16, 16, 3))
    state = jax.jit(lambda: detector.init(KEY, {}, spec))()
    image = np.random.default_rng(0).random((2, 16, 16, 3), np.float32)
    found = predict(detector, state, {}, image)
    params, statistics = state.variables["params"], state.variables["batch_stats"]
    # sigma is 0 and corners are aligned, so the corners of the map are tokens; the largest is inside the map's range
    assert found.map.shape == (2, 16, 16)
    largest = np.asarray(found.map[:, ::5, ::5]).max((1, 2))
    tokens = _tokens(params, image)
    restored = Restorer((4, 4), (2,), (4, 4), (2, 2), (1, 1)).apply(
        {"params": params["restorer"], "batch_stats": statistics}, tokens
    )
    truth = losses.mse(restored, image) - (1 - losses.ssim(restored, image)) + largest
    np.testing.assert_allclose(found.score, truth, rtol=1e-4)


def _tokens(params, image):
    return Encoder(4, 8, 1, 2, 8).apply({"params": params["encoder"]}, image)


def test_bad_options_are_refused():
    for options, match in (
        ({"dim": 12}, "dim must be a positive multiple of 8"),
        ({"widths": (4,)}, "one longer than widths"),
        ({"noise": -1.0}, "noise"),
        ({"heads": 3}, "multiple of detector.heads"),
    ):
        with pytest.raises(UserError, match=match):
            vtadl(**options)
    detector = vtadl(**TINY)
    with pytest.raises(UserError, match="decoder makes 16 x 16 pixels"):
        detector.init(KEY, {}, spec_for(detector, {}, 2, (32, 32, 3)))
