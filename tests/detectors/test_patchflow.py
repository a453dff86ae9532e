"""PatchFlow: the adaptor on small grids is the convolution on the large one; sizes of the image; refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.distribution.patchflow import Adaptor, Flow, patchflow
from iadjax.errors import UserError
from tests import tiny
from tests.direct import embed

FROZEN = {"backbone": {}}


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_adaptor_is_a_convolution_of_enlarged_levels(align_corners):
    rng = np.random.default_rng(0)
    levels = [
        jnp.asarray(rng.standard_normal((2, side, side + 1, depth)), jnp.float32) for side, depth in ((8, 5), (4, 6), (3, 7))
    ]
    adaptor = Adaptor(4, align_corners)
    variables = jax.jit(adaptor.init)(jax.random.key(0), levels)
    joined = jnp.concatenate([ops.resize(level, (8, 9), align_corners=align_corners) for level in levels], axis=-1)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    assert kernel.shape == (1, 1, 18, 4) and np.abs(bias).max() <= 18**-0.5
    expected = np.einsum("bhwc,cd->bhwd", np.asarray(joined, np.float64), np.asarray(kernel[0, 0], np.float64)) + np.asarray(
        bias
    )
    np.testing.assert_allclose(jax.jit(adaptor.apply)(variables, levels), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def flow():
    flow = Flow(2, 6, 2.0)
    x = jax.random.normal(jax.random.key(1), (2, 3, 3, 5))
    variables = jax.jit(flow.init)(jax.random.key(0), x)
    # untrained couplings are close to the identity
    wave = lambda leaf: 0.3 * jnp.cos(jnp.arange(1.0 * leaf.size)).reshape(leaf.shape)  # noqa: E731
    moved = jax.tree.map(lambda leaf: leaf + wave(leaf), variables["params"])
    return flow, {**variables, "params": moved}, x


@pytest.mark.usefixtures("plain_convolutions")
def test_inverse_undoes_the_flow(flow):
    flow, variables, x = flow
    z, log_det = jax.jit(flow.apply)(variables, x)
    assert np.abs(z - x).max() > 0.5
    again, back = jax.jit(lambda z: flow.apply(variables, z, inverse=True))(z)
    np.testing.assert_allclose(again, x, atol=1e-4)
    np.testing.assert_allclose(log_det, -back, rtol=1e-4)


@pytest.mark.usefixtures("plain_convolutions")
def test_log_determinant_is_that_of_the_jacobian(flow):
    flow, variables, x = flow
    _, log_det = jax.jit(flow.apply)(variables, x)
    jacobian = jax.jit(jax.jacobian(lambda flat: flow.apply(variables, flat.reshape(1, *x.shape[1:]))[0].ravel()))
    for row, expected in zip(x, log_det, strict=True):
        sign, value = np.linalg.slogdet(np.asarray(jacobian(row.ravel()), np.float64))
        assert sign != 0
        np.testing.assert_allclose(expected, value, rtol=1e-4)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_the_network_sees_the_image_at_several_sizes(interpolation):
    image = np.random.default_rng(0).random((2, 64, 48, 3), np.float32)
    backbone = tiny.bank()
    found = embed(patchflow(backbone, layers=("layer1", "layer2"), num_scales=2, interpolation=interpolation), FROZEN, image)
    # every second pixel, or means of two by two
    half = image[:, ::2, ::2] if interpolation == "nearest" else image.reshape(2, 32, 2, 24, 2, 3).mean(axis=(2, 4))
    layers = ("layer1", "layer2")
    levels = [level for each in (image, half) for level in backbone.features({}, jnp.asarray(each), layers)]
    assert [level.shape[1:3] for level in found] == [(16, 12), (8, 6), (8, 6), (4, 3)]
    for level, other in zip(found, levels, strict=True):
        np.testing.assert_allclose(level, ops.average_pool(other), rtol=1e-4, atol=1e-5)


def test_refusals():
    backbone = tiny.bank()
    for options, sentence in (
        ({"patch_size": 2}, "detector.patch_size must be odd, got 2"),
        ({"interpolation": "area"}, "detector.interpolation must be 'nearest' or 'bilinear', got 'area'"),
        ({"dimension": 1}, "detector.dimension"),
    ):
        with pytest.raises(UserError, match=sentence):
            patchflow(backbone, layers=("layer1",), **options)
    with pytest.raises(UserError, match="detector.num_scales=3 makes images of 8 x 12; take fewer or larger ones"):
        embed(patchflow(backbone, layers=("layer1",)), FROZEN, np.zeros((1, 32, 48, 3), np.float32))
