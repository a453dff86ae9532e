"""PyramidFlow: its flow against autodiff, pairs and padding, the template; tests/parity has the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.config import load_config
from iadjax.detectors.distribution.pyramidflow import Flow, pair_loss, pyramidflow
from iadjax.errors import UserError
from iadjax.nn.pyramid_flow import build_pyramid, compose_pyramid
from tests.direct import batch_of, predict, spec_for
from tests.parity import harness


@pytest.mark.parametrize("norm", ["channel", "spatial"])
def test_flow_is_invertible_and_its_log_determinant_is_autodiffs(norm):
    rng = np.random.default_rng(0)
    levels = [rng.standard_normal((2, side, side, 3)).astype(np.float32) for side in (4, 2, 1)]
    flow = Flow(3, 1, 3, 2.0, norm)
    variables = jax.jit(flow.init)(jax.random.key(0), levels)
    # the networks begin as zero, and the running means as well
    noise = lambda x: x + 0.3 * rng.standard_normal(x.shape).astype(np.float32)  # noqa: E731
    moved = {name: jax.tree.map(noise, variables[name]) for name in ("params", "batch_stats")}
    variables = {**variables, **moved}
    sizes = np.cumsum([0, *(level[0].size for level in levels)])

    def flat(x):
        parts = [x[a:b].reshape(1, *level.shape[1:]) for a, b, level in zip(sizes, sizes[1:], levels, strict=False)]
        return jnp.concatenate([each.ravel() for each in flow.apply(variables, parts)[0]])

    @jax.jit
    def everything(levels):
        z, log_det = flow.apply(variables, levels)
        jacobian = jax.jacfwd(flat)(jnp.concatenate([level[0].ravel() for level in levels]))
        return z, log_det, flow.apply(variables, z, inverse=True), jacobian

    z, log_det, (again, back), jacobian = everything(levels)
    for x, y in zip(levels, again, strict=True):
        np.testing.assert_allclose(y, x, atol=1e-4)
    np.testing.assert_allclose(back, -np.asarray(log_det), rtol=1e-4, atol=1e-4)
    assert np.linalg.slogdet(np.asarray(jacobian, np.float64))[1] == pytest.approx(float(log_det[0]), rel=1e-3, abs=1e-4)
    assert abs(float(log_det[0])) > 0.1


def test_a_pyramid_is_put_together_again():
    x = np.random.default_rng(0).standard_normal((2, 8, 4, 3)).astype(np.float32)
    levels = jax.jit(build_pyramid, static_argnums=1)(x, 3)
    assert [level.shape[1:3] for level in levels] == [(8, 4), (4, 2), (2, 1)]
    np.testing.assert_allclose(jax.jit(compose_pyramid)(levels), x, atol=1e-5)


def test_pairs_of_images_that_count():
    rng = np.random.default_rng(0)
    levels = [rng.standard_normal((3, 4, 4, 2)).astype(np.float32)]
    loss = jax.jit(pair_loss)
    pairs = [np.abs(np.fft.fft2(np.square(levels[0][i] - levels[0][j]).mean(-1))).mean() for i, j in ((0, 1), (0, 2), (1, 2))]
    assert float(loss(levels, np.ones(3, bool))) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert float(loss(levels, np.array([True, False, True]))) == pytest.approx(pairs[1], rel=1e-5)
    # a last batch of one image has no pair, and moves nothing
    value, gradient = jax.jit(jax.value_and_grad(pair_loss))(levels, np.array([True, False, False]))
    assert float(value) == 0 and not np.any(gradient[0])


def test_the_template_is_the_mean_of_latent_pyramids():
    features = np.random.default_rng(0).standard_normal((3, 4, 4, 2)).astype(np.float32)
    backbone, frozen = harness.given([features])
    detector = pyramidflow(backbone, layer="level0", levels=2, stacks=1, kernel=3, flips=True)
    spec = spec_for(detector, frozen, 3, (8, 8, 3), batch_size=3)
    state = jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(0))
    train, average = detector.phases(spec)
    image = np.random.default_rng(1).random((3, 8, 8, 3), np.float32)
    assert sorted(train.augment(np.random.default_rng(0), image[0], None)["flipped"].ravel()) == sorted(image[0].ravel())
    batch = batch_of(detector, frozen, image, valid=[True, True, False])
    state, _ = jax.jit(average.update)(jax.random.key(0), state, frozen, batch)
    state, _ = jax.jit(average.update)(jax.random.key(0), state, frozen, batch._replace(valid=np.array([False, False, True])))
    z, _ = Flow(2, 1, 3, 2.0, "channel").apply(state.trained.variables, build_pyramid(features, 2))
    assert float(state.count) == 3
    for level, mean in zip(z, state.template, strict=True):
        np.testing.assert_allclose(mean, level.mean(axis=0), atol=1e-5)
    found = predict(detector, state, frozen, image)
    assert found.map.shape == (3, 8, 8) and np.all(found.score >= found.map.max(axis=(1, 2)) - 1e-5)


def test_settings_by_category_and_refusals():
    config = load_config("unsupervised/pyramidflow.py:mvtec_ad,category=carpet").detector
    assert (config.levels, config.norm, config.flips) == (8, "spatial", True)
    config = load_config("unsupervised/pyramidflow.py:mvtec_ad,category=screw").detector
    assert (config.levels, config.norm, config.flips) == (2, "channel", False)
    backbone, frozen = harness.given([jnp.zeros((2, 6, 6, 2))])
    with pytest.raises(UserError, match="'channel' or 'spatial'"):
        pyramidflow(backbone, layer="level0", norm="batch")
    detector = pyramidflow(backbone, layer="level0", levels=3)
    with pytest.raises(UserError, match="a grid that halves 2 times, got 6 x 6"):
        detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 2, (8, 8, 3), batch_size=2))
    detector = pyramidflow(backbone, layer="level0", levels=2)
    with pytest.raises(UserError, match="data.batch_size above 1"):
        detector.init(jax.random.key(0), frozen, spec_for(detector, frozen, 2, (8, 8, 3)))
