"""Invertible layers: each undoes itself, and its log-determinant is that of autodiff's Jacobian."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.nn.flow import AllInOneBlock, LevelCoupling, Permutation, chain, convolutions, dense
from iadjax.nn.layers import linear

MAP, ROW = (2, 3, 3, 5), (4, 5)


class Chain(nn.Module):
    """Layers one after the other."""

    layers: tuple

    @nn.compact
    def __call__(self, x, *condition, inverse=False):
        return chain(self.layers, x, *condition, inverse=inverse)


def across(number, widths):
    """A small network that mixes the levels."""
    layers = [nn.Conv(width, (3, 3), name=f"subnet{number}_{i}") for i, width in enumerate(widths)]

    def network(levels):
        small = sum(jnp.mean(level, axis=(1, 2, 3), keepdims=True) for level in levels)
        return [layer(level + jnp.tanh(small)) for layer, level in zip(layers, levels, strict=True)]

    return network


def vectors(number, widths):
    """A linear layer for each level `[B, C]`."""
    layers = [linear(width, width // 2, f"s{number}_{i}") for i, width in enumerate(widths)]
    return lambda levels: [layer(level) for layer, level in zip(layers, levels, strict=True)]


def normal(seed, *shapes):
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def unflattened(flat, like):
    sizes = np.cumsum([leaf.size for leaf in like])[:-1]
    return [part.reshape(leaf.shape) for part, leaf in zip(jnp.split(flat, sizes), like, strict=True)]


# a layer, the shapes of its levels (one: an array), that of its condition
LAYERS = {
    "maps": (AllInOneBlock(convolutions(3, 0.7)), [MAP], None),
    "maps with a norm": (AllInOneBlock(convolutions(3, norm=True), 1.9), [MAP], (2, 3, 3, 2)),
    "rows with a condition": (AllInOneBlock(dense(), 1.9, soft=True), [ROW], (4, 3)),
    "two blocks": (Chain((AllInOneBlock(dense(), 1.9), AllInOneBlock(dense(), 1.9))), [ROW], (4, 3)),
    "one level": (LevelCoupling(vectors, 3.0), [(4, 6), (4, 5)], None),
    "three levels": (LevelCoupling(across, 3.0), [(2, 4, 4, 3), (2, 2, 2, 4), (2, 1, 1, 2)], None),
    "permutation": (Permutation(), [MAP, ROW], None),
    "rotation": (Permutation(soft=True), [ROW], None),
}


@pytest.fixture(params=sorted(LAYERS))
def case(request):
    """A function of a list of levels that gives levels and log |det|, forward and back, and an input of it."""
    layer, shapes, condition = LAYERS[request.param]
    levels = normal(1, *shapes)
    several = isinstance(layer, LevelCoupling | Permutation)
    more = [] if condition is None else normal(2, condition)
    variables = layer.init(jax.random.key(0), levels if several else levels[0], *more)
    if "params" in variables:
        keys = iter(jax.random.split(jax.random.key(3), 100))
        noisy = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), variables["params"])
        variables = {**variables, "params": noisy}

    def call(levels, *more, inverse=False):
        y, log_det = layer.apply(variables, levels if several else levels[0], *more, inverse=inverse)
        return y if several else [y], log_det

    return call, levels, more


def test_inverse_undoes_forward(case):
    call, levels, more = case
    z, log_det = jax.jit(call)(levels, *more)
    again, back = jax.jit(functools.partial(call, inverse=True))(z, *more)
    for x, y, other in zip(levels, again, z, strict=True):
        assert np.abs(other - x).max() > 0.1
        np.testing.assert_allclose(y, x, atol=1e-4)
    np.testing.assert_allclose(log_det, -np.asarray(back), rtol=1e-4, atol=1e-4)


def test_log_determinant_is_that_of_the_jacobian_of_one_row(case):
    call, levels, more = case
    _, log_det = call(levels, *more)
    for row in range(2):
        own = [level[row : row + 1] for level in levels]
        condition = [each[row : row + 1] for each in more]

        def flat(x, own=own, condition=condition):
            return jnp.concatenate([y.ravel() for y in call(unflattened(x, own), *condition)[0]])

        jacobian = jax.jit(jax.jacobian(flat))(jnp.concatenate([level.ravel() for level in own]))
        sign, value = np.linalg.slogdet(np.asarray(jacobian, np.float64))
        assert sign != 0
        np.testing.assert_allclose(np.broadcast_to(log_det, len(levels[0]))[row], value, rtol=1e-4, atol=1e-4)


def test_a_row_does_not_depend_on_the_others():
    layer, (shape,), condition = LAYERS["rows with a condition"]
    (x,), (c,) = normal(1, shape), normal(2, condition)
    variables = layer.init(jax.random.key(0), x, c)
    whole, log_det = layer.apply(variables, x, c)
    alone, own = layer.apply(variables, x[2:3], c[2:3])
    np.testing.assert_allclose(alone[0], whole[2], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(own[0], log_det[2], rtol=1e-5)


def test_a_permutation_moves_channels_and_a_rotation_keeps_lengths():
    (x,) = normal(1, ROW)
    hard = Permutation()
    variables = hard.init(jax.random.key(0), [x])
    order = np.asarray(variables["constants"]["permutation_0"])
    np.testing.assert_array_equal(hard.apply(variables, [x])[0][0], np.asarray(x)[:, order])
    soft = Permutation(soft=True)
    variables = soft.init(jax.random.key(0), [x])
    (y,), _ = soft.apply(variables, [x])
    np.testing.assert_allclose(y, np.asarray(x) @ np.asarray(variables["constants"]["rotation_0"]).T, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(y, axis=1), np.linalg.norm(x, axis=1), rtol=1e-5)
