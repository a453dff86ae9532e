"""FastFlow: invertibility and log-determinants by autodiff, sizes and refusals; tests/parity has the other codes' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.backbones.weights import fill_by_table
from iadjax.cpu.dispatch import plain
from iadjax.detectors.distribution.fastflow import Flow, fastflow
from iadjax.detectors.pytorch import from_torch
from iadjax.errors import UserError
from iadjax.nn.flow import AllInOneBlock, convolutions
from tests import tiny
from tests.direct import spec_for

pytestmark = pytest.mark.usefixtures("plain_convolutions")


def random_flow(depth=5, hidden_ratio=0.7):
    flow = Flow(4, False, hidden_ratio, 2.0)
    x = jax.random.normal(jax.random.key(1), (2, 3, 3, depth))
    variables = jax.jit(flow.init)(jax.random.key(0), x)
    keys = iter(jax.random.split(jax.random.key(2), 100))
    noisy = jax.tree.map(lambda leaf: leaf + 0.5 * jax.random.normal(next(keys), leaf.shape), variables["params"])
    return flow, {**variables, "params": noisy}, x


def test_inverse_undoes_forward():
    flow, variables, x = random_flow()
    z, log_det = jax.jit(flow.apply)(variables, x)
    assert np.abs(z - x).max() > 0.5
    again, inverse_det = flow.apply(variables, z, inverse=True)
    np.testing.assert_allclose(again, x, atol=1e-4)
    np.testing.assert_allclose(log_det, -inverse_det, rtol=1e-4)


def test_log_determinant_is_that_of_the_jacobian():
    flow, variables, x = random_flow()
    _, log_det = jax.jit(flow.apply)(variables, x)
    for row, expected in zip(x, log_det, strict=True):
        jacobian = jax.jacobian(lambda flat: flow.apply(variables, flat.reshape(1, *x.shape[1:]))[0].ravel())(row.ravel())
        sign, value = np.linalg.slogdet(np.asarray(jacobian, np.float64))
        assert sign != 0
        np.testing.assert_allclose(expected, value, rtol=1e-4)


@pytest.mark.parametrize(("steps", "conv3x3_only"), [(3, True), (4, False), (5, False), (1, False)])
def test_the_loop_of_accelerators_is_one_coupling_after_the_other(steps, conv3x3_only):
    flow = Flow(steps, conv3x3_only, 1.0, 2.0)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 5))
    variables = flow.init(jax.random.key(1), x)

    def moved(leaf):
        # untrained couplings are close to the identity
        return leaf + 0.3 * jnp.cos(jnp.arange(leaf.size, dtype=leaf.dtype)).reshape(leaf.shape)

    def looped(params, x):
        with plain(loops=True):
            return flow.apply({**variables, "params": params}, x)

    def chained(params, x):
        total = 0.0
        for i in range(steps):
            block = AllInOneBlock(convolutions(3 if conv3x3_only or i % 2 == 0 else 1), 2.0)
            constants = variables["constants"][f"module_list_{i}"]
            x, log_det = block.apply({"params": params[f"module_list_{i}"], "constants": constants}, x)
            total += log_det
        return x, total

    def with_gradients(function):
        def value(*given):
            z, log_det = function(*given)
            return jnp.sum(z**2) + jnp.sum(log_det), (z, log_det)

        return jax.jit(jax.value_and_grad(value, (0, 1), has_aux=True))

    given = jax.tree.map(moved, variables["params"]), x
    assert ("while" in with_gradients(looped).lower(*given).as_text()) == (steps > 2)
    for a, b in zip(*(jax.tree.leaves(with_gradients(each)(*given)) for each in (looped, chained)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5 * np.abs(b).max())


def test_scale_starts_at_one():
    flow = Flow(1, True, 1.0, 2.0)
    x = jnp.zeros((1, 2, 2, 4))
    variables = jax.jit(flow.init)(jax.random.key(0), x)
    silent = jax.tree.map(jnp.zeros_like, variables["params"])
    silent["module_list_0"]["global_scale"] = variables["params"]["module_list_0"]["global_scale"]
    z, log_det = flow.apply({**variables, "params": silent}, x + jnp.arange(4.0)[None, None, None])
    assert sorted(np.asarray(z[0, 0, 0]).round(5)) == [0, 1, 2, 3]
    np.testing.assert_allclose(log_det, 0, atol=1e-5)


def built(**options):
    backbone = tiny.bank()
    frozen = {"backbone": backbone.init(jax.random.key(0), backbone.layers)}
    detector = fastflow(backbone, flow_steps=2, **options)
    return (
        detector,
        frozen,
        jax.jit(detector.init, static_argnums=2)(jax.random.key(1), frozen, spec_for(detector, frozen, 4, (32, 32, 3))),
    )


def test_hidden_channels_refer_to_the_half_that_conditions():
    # 5 channels: 3 condition 2
    x = jnp.zeros((1, 2, 2, 5))
    for ratio, hidden in ((1.0, 3), (0.7, 2), (0.16, 1)):
        shapes = jax.eval_shape(lambda r=ratio: Flow(1, True, r, 2.0).init(jax.random.key(0), x))
        subnet = shapes["params"]["module_list_0"]
        assert subnet["subnet_0"]["kernel"].shape == (3, 3, 3, hidden)
        assert subnet["subnet_2"]["kernel"].shape == (3, 3, hidden, 4)


def test_a_missing_tensor_and_one_given_twice_are_named():
    _, _, state = built()
    weight = np.zeros((9, 9, 3, 3), np.float32)
    tensors = {f"nf_flows.0.module_list.0.subnet.{i}.weight": weight for i in (0, 1)}
    with pytest.raises(UserError, match=r"missing a tensor for nf_flows_0/module_list_0/permutation.*and \d+ more"):
        from_torch("fastflow", tensors, state)
    leaf = {"params": {"module": {"kernel": np.zeros((2, 3), np.float32)}}}
    with pytest.raises(UserError, match=r"a.weight and b.weight are the same tensor"):
        fill_by_table(leaf, {f"{name}.weight": np.zeros((3, 2)) for name in "ab"}, {r"\w\.weight": "module/weight"})
    with pytest.raises(UserError, match=r"a.weight has shape \(2, 2\).*unknown a.bias"):
        given = {"a.weight": np.zeros((2, 2)), "a.bias": np.zeros(2)}
        fill_by_table(leaf, given, {r"\w\.weight": "module/weight"})


def test_without_the_norm_there_is_none():
    _, _, state = built(layer_norm=False)
    assert all(name.startswith("nf_flows") for name in state.variables["params"])


def test_bad_options_are_refused():
    with pytest.raises(UserError, match="must be at least 1|must be above 0"):
        built(clamp=0.0)
