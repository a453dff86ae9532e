"""Transposed convolutions against their definition in float64: every input spreads its kernel over the output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.nn.transposed import ConvTranspose


def spread(x, kernel, stride, padding, output_padding):
    """`[B, H, W, C]` by loops; kernel `[k, k, C, O]`."""
    size = kernel.shape[0]
    sides = [(side - 1) * stride + size + output_padding for side in x.shape[1:3]]
    y = np.zeros((len(x), *sides, kernel.shape[-1]))
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            where = slice(i * stride, i * stride + size), slice(j * stride, j * stride + size)
            y[:, *where] += np.einsum("bc,hwco->bhwo", x[:, i, j], kernel)
    return y[:, padding : sides[0] - padding, padding : sides[1] - padding]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "output_padding", "grid"),
    [
        (4, 2, 1, 0, (3, 5)),
        (7, 2, 3, 1, (4, 3)),
        (8, 1, 0, 0, (1, 1)),
        (3, 1, 1, 0, (4, 3)),
        (5, 3, 1, 2, (2, 3)),
        (2, 3, 0, 1, (2, 2)),
    ],
)
def test_every_input_spreads_its_kernel(kernel, stride, padding, output_padding, grid):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *grid, 3))
    weights, bias = rng.normal(size=(kernel, kernel, 3, 4)), rng.normal(size=4)
    layer = ConvTranspose(4, kernel, stride, padding, output_padding)
    params = {"params": {"transposed_kernel": jnp.asarray(weights, jnp.float32), "bias": jnp.asarray(bias, jnp.float32)}}
    truth = spread(x, weights, stride, padding, output_padding) + bias
    # the gradient is the transposed map: of <truth, w> for the input it is the convolution of w
    weight = rng.normal(size=truth.shape)

    def program(x, weight):
        y, back = jax.vjp(layer.apply, params, x)
        return y, back(weight)[1]

    y, dx = jax.jit(program)(jnp.asarray(x, jnp.float32), jnp.asarray(weight, jnp.float32))
    assert y.shape == truth.shape
    np.testing.assert_allclose(y, truth, atol=1e-4)
    moved = x + 1e-3 * rng.normal(size=x.shape)
    change = np.sum(weight * (spread(moved, weights, stride, padding, output_padding) + bias - truth))
    np.testing.assert_allclose(np.sum(np.asarray(dx, np.float64) * (moved - x)), change, rtol=1e-3)


def test_weights_are_drawn_as_pytorch_draws_them():
    params = ConvTranspose(32, 4).init(jax.random.key(0), np.zeros((1, 2, 2, 64), np.float32))["params"]
    bound = (4 * 4 * 32) ** -0.5
    for leaf in params.values():
        assert 0.9 * bound < np.abs(leaf).max() <= bound
