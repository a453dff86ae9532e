"""FYD: its two losses over all pairs of images, its Gaussians and its map, in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.distribution.fyd import coarse_loss, fine_loss, fyd
from iadjax.errors import UserError
from iadjax.nn.spatial import Localization, affine, inverse, warp
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

pytestmark = pytest.mark.usefixtures("plain_convolutions")

BACKBONE, FROZEN = pyramid(), {"backbone": pyramid_variables()}
KEY = jax.random.key(0)
RNG = np.random.default_rng(0)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_losses_are_means_over_pairs_of_valid_images():
    valid = np.array([True, False, True, True])
    pairs = [(i, j) for i in (0, 2, 3) for j in (0, 2, 3) if i != j]
    image, z, p = (RNG.standard_normal((4, 3, 2, 5)) for _ in range(3))
    expected = np.mean([(image[i] - image[j]) ** 2 for i, j in pairs])
    assert float(coarse_loss(jnp.float32(image), jnp.asarray(valid))) == pytest.approx(expected, rel=1e-5)
    expected = -np.mean([(unit(p[i]) * unit(z[j])).sum(-1) for i, j in pairs])
    assert float(fine_loss(jnp.float32(z), jnp.float32(p), jnp.asarray(valid))) == pytest.approx(expected, rel=1e-5)
    # the gradient of the mean of images is zero, so that of the coarse loss is that of all pairs
    gradient = jax.grad(lambda x: coarse_loss(x, jnp.asarray(valid)))(jnp.float32(image))
    whole = jax.grad(lambda x: sum(jnp.mean((x[i] - x[j]) ** 2) for i, j in pairs) / len(pairs))(jnp.float32(image))
    np.testing.assert_allclose(gradient, whole, atol=1e-6)
    # no gradient goes through z
    assert not np.any(jax.grad(lambda z: fine_loss(z, jnp.float32(p), jnp.asarray(valid)))(jnp.float32(z)))


def test_a_fit_aligns_and_its_map_is_moved_back():
    detector = fyd(BACKBONE, layers=("layer1",), width=4, epochs=3, learning_rate=0.1, epsilon=0.1, sigma=0.0)
    spec = spec_for(detector, FROZEN, 6, (32, 32, 3), batch_size=6)
    image = RNG.random((6, 32, 32, 3), np.float32)
    batch = batch_of(detector, FROZEN, image)
    state = jax.jit(detector.init, static_argnums=2)(KEY, FROZEN, spec)
    align, fit = detector.phases(spec)
    update = jax.jit(align.update)
    losses = []
    for _ in range(spec.steps_per_epoch * 3):
        state, info = update(KEY, state, FROZEN, batch)
        losses.append(float(info["loss"]))
    assert losses[-1] < losses[0]
    state, _ = jax.jit(fit.update)(KEY, align.finalize(KEY, state, FROZEN), FROZEN, batch)
    fitted = fit.finalize(KEY, state, FROZEN)
    assert jax.tree.structure(fit.finalized(state)) == jax.tree.structure(fitted)
    # a transformer that turns and shifts
    fitted.variables["image"]["params"]["dense"]["bias"] = jnp.float32([0.8, -0.5, 0.6, 0.4, -0.9])
    theta = affine(Localization().apply(fitted.variables["image"], image, None), 15.0, 0.1, 0.1)
    assert np.abs(theta - affine(jnp.zeros((6, 5)), 15.0, 0.1, 0.1)).max() > 0.02
    found = predict(detector, fitted, FROZEN, image)
    still = fitted._replace(variables={**fitted.variables, "image": jax.tree.map(jnp.zeros_like, fitted.variables["image"])})
    posed = predict(detector, still, FROZEN, warp(image, theta)).map
    np.testing.assert_allclose(found.map, warp(posed[..., None], inverse(theta))[..., 0], atol=1e-3)
    np.testing.assert_array_equal(found.score, found.map.max((1, 2)))


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="rotation must be at least 0"):
        fyd(BACKBONE, rotation=-1.0)
