"""Layers against PyTorch's definitions in NumPy, or against Flax."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.cpu.dispatch import plain
from iadjax.nn.layers import max_pool
from iadjax.nn.norms import BatchNorm, GroupNorm


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


@pytest.mark.parametrize("shape", [(3, 5, 4, 12), (2, 7, 12)])
def test_group_norm_and_its_gradients_are_those_of_flax(shape):
    rng = np.random.default_rng(0)
    x, weight = 3 + rng.standard_normal((2, *shape), np.float32)
    variables = {"params": dict(zip(("scale", "bias"), rng.random((2, shape[-1]), np.float32), strict=True))}
    found = []
    for norm in (GroupNorm(4), nn.GroupNorm(4, epsilon=1e-5, use_fast_variance=False)):
        drawn = norm.init(jax.random.key(0), x)
        value = lambda variables, x, norm=norm: jnp.sum(weight * norm.apply(variables, x) ** 2)  # noqa: E731
        found.append((drawn, norm.apply(variables, x), jax.grad(value, (0, 1))(variables, x)))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *found)
    # by hand: the first group holds 1 and 2, the second 9 and 9
    x = np.array([[[[1.0, 2, 9, 9, 9, 9, 0, 0, 0, 0, 0, 1]]]], np.float32)
    y = GroupNorm(6).apply({"params": {"scale": np.ones(12, np.float32), "bias": np.zeros(12, np.float32)}}, x)
    np.testing.assert_allclose(
        y[0, 0, 0, :4], [-(0.25**0.5) / (0.25 + 1e-5) ** 0.5, 0.5 / (0.25 + 1e-5) ** 0.5, 0, 0], atol=1e-6
    )
