"""Layers against PyTorch's definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.nn.layers import max_pool
from iadjax.platforms import plain


@pytest.mark.parametrize("size,pads", [((8, 12), ((1, 1), (1, 1))), ((9, 7), ((0, 0), (0, 0))), ((8, 7), ((0, 1), (0, 0)))])
def test_max_pool_is_the_largest_of_every_window(size, pads):
    # negative, so that a padding by zeros would show
    x = -1 - np.random.default_rng(0).random((2, *size, 5), np.float32)
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-np.inf)
    truth = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2].max((-2, -1))
    weight = np.random.default_rng(1).random(truth.shape, np.float32)
    program = lambda x: max_pool(x, pads)  # noqa: E731
    found = []
    for form in (program, plain()(program)):
        np.testing.assert_array_equal(jax.jit(form)(x), truth)
        found.append(jax.grad(lambda x, form=form: jnp.sum(weight * form(x)))(x))
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert float(found[0].sum()) == pytest.approx(float(weight.sum()), rel=1e-5)
