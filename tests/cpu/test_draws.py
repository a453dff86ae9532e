"""Draws made together are those that JAX makes one by one."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from iadjax.cpu import draws
from iadjax.cpu.draws import draw_together

# at higher levels of optimisation a product and a sum around the draw may be rounded once or twice
EXACT = {"xla_backend_optimization_level": 0}


class Network(nn.Module):
    """Layers whose weights come from several distributions."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(5, (3, 3), kernel_init=nn.initializers.he_uniform())(x)
        x = nn.Dense(7, bias_init=nn.initializers.normal(0.1))(nn.LayerNorm()(x))
        return nn.Dense(300, kernel_init=nn.initializers.orthogonal())(x)


def network(key):
    return Network().init(key, jnp.zeros((1, 4, 4, 3)))


@jax.custom_jvp
def own_gradient(key):
    return jax.random.normal(key, (4,))


own_gradient.defjvp(lambda primals, tangents: (own_gradient(*primals), jnp.zeros(4)))


def first_bit(key):
    return jax.random.bits(key) % 2 == 1


def others(key):
    """What draws in other ways: split keys, keys from draws, permutations, half precision, several keys, loops, branches, draws
    inside functions with their own gradient, nothing."""
    first, second, third = jax.random.split(key, 3)
    drawn = jax.random.wrap_key_data(jax.random.bits(first, (2,)))
    _, loop = jax.lax.scan(lambda key, i: (key, jax.random.normal(jax.random.fold_in(key, i), (2,))), third, jnp.arange(3))
    return {
        "of drawn": jax.random.uniform(drawn, (3, 2)),
        "of each": jax.vmap(lambda key: jax.random.normal(key, (4,)))(jax.random.split(second, 3)),
        "permutation": jax.random.permutation(second, 9),
        "half": jax.random.normal(first, (6,), jnp.bfloat16),
        "scalar": jax.random.uniform(third),
        "empty": jax.random.normal(third, (0, 3)),
        "loop": loop,
        "branch": jax.lax.cond(first_bit(first), lambda key: jax.random.normal(key, (2,)), lambda key: jnp.zeros(2), second),
        "relu": nn.relu(jax.random.normal(second, (5,))),
        "own": own_gradient(third),
        "again": jax.checkpoint(lambda key: jax.random.normal(key, (3,)))(first),
        "key": jax.random.key_data(second),
        "number": 3.0,
        "given": jnp.zeros(2),
    }


def compiled(function, *args):
    return jax.tree.map(np.asarray, jax.jit(function, compiler_options=EXACT)(*args))


@pytest.mark.parametrize("function", [network, others])
@pytest.mark.parametrize("limit", [1 << 22, 600, 1])
def test_the_same_draws_to_the_bit(function, limit, monkeypatch):
    monkeypatch.setattr(draws, "_LIMIT", limit)
    key = jax.random.key(5)
    expected, found = compiled(function, key), compiled(draw_together(function), key)
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_keys_of_another_kind():
    key = jax.random.key(5, impl="rbg")
    jax.tree.map(np.testing.assert_array_equal, compiled(draw_together(network), key), compiled(network, key))


def test_arguments_in_any_order_and_constants():
    constant = jnp.arange(3.0)

    def function(tree, key):
        return {"b": jax.random.normal(key, (3,)) + constant, "a": tree["x"]}, tree["y"]

    tree = {"y": jnp.ones(2), "x": jnp.zeros(1)}
    found, expected = (compiled(each, tree, jax.random.key(1)) for each in (draw_together(function), function))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def operations(function, *args):
    """How often each operation is called, in compiled functions as well."""
    numbers = {}

    def count(jaxpr):
        for eqn in jaxpr.eqns:
            numbers[eqn.primitive.name] = numbers.get(eqn.primitive.name, 0) + 1
            for inner in jaxprs_in_params(eqn.params):
                count(inner)

    count(jax.make_jaxpr(function)(*args).jaxpr)
    return numbers


def test_one_operation_for_all_draws_and_none_that_no_result_needs():
    key = jax.random.key(0)
    before, after = operations(network, key), operations(draw_together(network), key)
    assert before["random_bits"] == 4 and before["random_fold_in"] > 4 and before["conv_general_dilated"] == 1
    assert after["threefry2x32"] == 1 and after["random_fold_in"] == 1
    assert "random_bits" not in after and "conv_general_dilated" not in after
