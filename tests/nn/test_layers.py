"""Layers against PyTorch's definitions in NumPy, or against Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.cpu.dispatch import plain
from iadjax.nn.layers import BatchNorm, max_pool


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


@pytest.mark.parametrize("shape", [(5, 4, 3, 6), (5, 6)])
def test_batch_norm_is_that_of_flax_over_the_valid_rows(shape):
    rng = np.random.default_rng(0)
    x, weight = 3 + rng.standard_normal((2, *shape), np.float32)
    valid = np.array([True, True, False, True, False])
    scale, bias, mean, var = rng.random((4, shape[-1]), np.float32)
    params, stats = {"scale": scale, "bias": bias}, {"mean": mean, "var": var}
    rows = valid.reshape(-1, *[1] * (len(shape) - 1))

    def ours(params, x, valid=valid):
        return BatchNorm().apply({"params": params, "batch_stats": stats}, x, valid, mutable="batch_stats")

    def theirs(params, x):
        norm = nn.BatchNorm(False, momentum=0.9, epsilon=1e-5, use_fast_variance=False)
        return norm.apply({"params": params, "batch_stats": stats}, x, mask=rows, mutable="batch_stats")

    def gradients(form):
        return jax.grad(lambda params, x: jnp.sum(weight * rows * form(params, x)[0]), (0, 1))(params, x)

    for found, truth in ((ours(params, x), theirs(params, x)), (gradients(ours), gradients(theirs))):
        assert jax.tree.structure(found) == jax.tree.structure(truth)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), found, truth)
    drawn = BatchNorm().init(jax.random.key(0), x, valid)
    assert jax.tree.structure(drawn) == jax.tree.structure({"batch_stats": stats, "params": params})
    # prediction: the running statistics, which stay as they are
    y, after = ours(params, x, None)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, rtol=1e-4, atol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, after, {"batch_stats": stats})


def test_batch_norm_takes_the_variance_of_numbers_far_from_zero():
    x = (1000 + np.random.default_rng(0).standard_normal((4, 8, 8, 3))).astype(np.float32)
    _, after = BatchNorm().init_with_output(jax.random.key(0), x, None)
    _, after = BatchNorm().apply(after, x, np.array([True] * 3 + [False]), mutable="batch_stats")
    rows = x[:3].astype(np.float64)
    for name, truth, before in (("mean", rows.mean((0, 1, 2)), 0), ("var", rows.var((0, 1, 2)), 1)):
        moments = (np.asarray(after["batch_stats"][name], np.float64) - 0.9 * before) / 0.1
        # the square of 1000 alone has steps of 0.06
        np.testing.assert_allclose(moments, truth, rtol=1e-4 if name == "var" else 1e-6)


def test_groups_of_a_batch_norm_are_calls_of_their_own():
    rng = np.random.default_rng(0)
    x, valid = rng.standard_normal((6, 2, 2, 3)).astype(np.float32), np.array([[True, False], [True, True], [False, True]])
    variables = BatchNorm().init(jax.random.key(0), x, None)
    y, changed = BatchNorm().apply(variables, x, valid, mutable="batch_stats")
    alone = [BatchNorm().apply(variables, x[i::2], valid[:, i], mutable="batch_stats") for i in (0, 1)]
    for i, (part, _) in enumerate(alone):
        np.testing.assert_allclose(y[i::2], part, rtol=1e-5, atol=1e-6)
    mean = jax.tree.map(lambda a, b: (a + b) / 2, alone[0][1], alone[1][1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), changed, mean)
