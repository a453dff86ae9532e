"""Every form of a convolution against its definition in float64, and the choice between them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.cpu.dispatch import plain
from iadjax.cpu.patches import patch_product
from iadjax.cpu.winograd import transforms, winograd
from iadjax.nn.convolution import convolve, direct


def definition(x, kernel, stride, pad):
    """Sums of products over windows, in float64."""
    x = np.pad(x.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel.astype(np.float64), optimize=True)


def drawn(size, side, depth, features):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *size, depth)).astype(np.float32)
    return x, rng.standard_normal((side, side, depth, features)).astype(np.float32)


def assert_close(found, truth, rounding=1e-5):
    assert found.shape == truth.shape
    np.testing.assert_allclose(found, truth, rtol=0, atol=rounding * np.abs(truth).max())


def chosen(side, size, depth, features, stride, rounded=False):
    """The convolution in the form that is chosen, its arguments and what it has to be."""
    x, kernel = drawn((size, size), side, depth, features)
    pad = 0 if side == 1 else 1
    program = functools.partial(convolve, stride=stride, pad=pad, rounded=rounded)
    return program, (x, kernel), definition(x, kernel, stride, pad)


@pytest.mark.parametrize("side", [3, 4])
def test_one_tile_of_winograd_is_a_filter(side):
    a, g, b = transforms(side)
    data, taps = np.arange(1.0, side + 2) ** 2, np.arange(side) - 1.5
    found = a @ ((g @ taps) * (b @ data))
    np.testing.assert_allclose(found, [data[:side] @ taps, data[1:] @ taps], rtol=1e-13)


@pytest.mark.parametrize("side,pad,size", [(3, 1, (8, 8)), (3, 0, (7, 10)), (3, 1, (5, 3)), (4, 0, (9, 8)), (4, 3, (6, 7))])
def test_winograd_is_the_convolution_and_so_are_its_gradients(side, pad, size):
    x, kernel = drawn(size, side, 5, 7)
    truth = definition(x, kernel, 1, pad)
    assert_close(winograd(x, kernel, pad), truth)
    weight = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
    forms = (winograd, direct)
    found, truth = (jax.grad(lambda *xk, f=f: jnp.sum(weight * f(*xk, pad=pad)), (0, 1))(x, kernel) for f in forms)
    for each, other in zip(found, truth, strict=True):
        assert_close(each, np.asarray(other))


@pytest.mark.parametrize("stride,pad", [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_a_product_of_patches_is_the_convolution(stride, pad):
    x, kernel = drawn((9, 8), 3, 4, 6)
    assert_close(patch_product(x, kernel, stride, pad), definition(x, kernel, stride, pad))


@pytest.mark.parametrize(
    "side,size,depth,features,stride,form",
    [
        (1, 8, 4, 5, 1, "dot_general"),
        (1, 8, 4, 5, 2, "platform_index"),
        (3, 8, 4, 5, 1, "conv_general_dilated"),
        (3, 32, 64, 128, 1, "platform_index"),
        (3, 46, 64, 64, 1, "platform_index"),
        (4, 32, 64, 128, 1, "platform_index"),
        (3, 16, 64, 128, 1, "conv_general_dilated"),
        (3, 8, 128, 256, 2, "platform_index"),
        (3, 16, 16, 64, 2, "conv_general_dilated"),
    ],
)
def test_whatever_form_is_chosen_it_is_the_convolution(side, size, depth, features, stride, form):
    program, (x, kernel), truth = chosen(side, size, depth, features, stride)
    text = str(jax.make_jaxpr(program)(x, kernel))
    assert form in text and (form == "platform_index") == ("platform_index" in text)
    program = jax.jit(program)
    together = program(x, kernel)
    assert_close(together, truth)
    # the choice looks at one image: the same form, and so the same rounding, in any batch
    assert_close(program(x[:1], kernel), np.asarray(together)[:1], 1e-6)


@pytest.mark.parametrize(
    "side,size,depth,features,stride,rounded",
    [
        # Winograd's where patches predict, patches whose gradient adds up in float32
        (3, 8, 360, 360, 1, False),
        (3, 8, 360, 360, 1, True),
        (3, 8, 128, 256, 2, True),
        # parts of the batch, patches for the kernel alone
        (3, 64, 3, 16, 2, False),
        (2, 24, 32, 64, 1, False),
        (3, 16, 32, 64, 2, False),
        (3, 32, 32, 64, 1, False),
    ],
)
def test_gradients_of_another_form_are_those_of_the_convolution(side, size, depth, features, stride, rounded):
    program, (x, kernel), truth = chosen(side, size, depth, features, stride, rounded)
    assert "custom_vjp" in str(jax.make_jaxpr(program)(x, kernel))
    weight = np.random.default_rng(1).standard_normal(truth.shape).astype(np.float32)
    plain_form = functools.partial(direct, stride=stride, pad=1)
    gradients = [
        jax.jit(jax.grad(lambda x, kernel, form=form: jnp.sum(weight * form(x, kernel)), (0, 1)))(x, kernel)
        for form in (program, plain_form)
    ]
    for found, truth in zip(*gradients, strict=True):
        assert found.dtype == jnp.float32
        assert_close(found, np.asarray(truth), 2**-6 if rounded else 1e-5)


def test_a_border_wider_than_the_kernel_has_a_gradient():
    x, kernel = drawn((44, 44), 3, 64, 64)
    weight = np.random.default_rng(1).standard_normal((2, 48, 48, 64)).astype(np.float32)
    found = [jax.jit(jax.grad(lambda x, f=f: jnp.sum(weight * f(x, kernel, pad=3))))(x) for f in (convolve, direct)]
    assert_close(found[0], np.asarray(found[1]))


def in_bfloat16(x):
    return np.asarray(jnp.asarray(x, jnp.bfloat16), np.float64)


def test_a_rounded_product_of_patches_sums_products_of_rounded_factors():
    x, kernel = drawn((9, 8), 3, 4, 6)
    assert_close(patch_product(x, kernel, 2, 1, rounded=True), definition(in_bfloat16(x), in_bfloat16(kernel), 2, 1))


def test_rounded_winograd_rounds_tiles_and_nothing_else():
    x, kernel = drawn((2, 2), 3, 5, 7)
    a, g, b = transforms(3)
    # one tile of 4 x 4 pixels gives the whole 2 x 2 output
    tile = np.einsum("ip,jq,bpqc->bijc", b, b, np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0))))
    taps = np.einsum("ip,jq,pqco->ijco", g, g, kernel.astype(np.float64))
    truth = np.einsum("ui,vj,bijc,ijco->buvo", a, a, in_bfloat16(tile), in_bfloat16(taps))
    assert_close(winograd(x, kernel, 1, rounded=True), truth)
    assert np.abs(truth - definition(x, kernel, 1, 1)).max() > 1e-4


@pytest.mark.parametrize(
    "side,size,depth,features,stride,form",
    [
        (1, 8, 4, 5, 1, "dot_general"),
        (1, 8, 4, 5, 2, "platform_index"),
        (3, 8, 4, 5, 1, "conv_general_dilated"),
        (3, 46, 64, 64, 1, "platform_index"),
        (3, 16, 64, 128, 2, "concatenate"),
    ],
)
def test_rounded_convolutions_stay_within_the_rounding_of_bfloat16(side, size, depth, features, stride, form):
    program, arguments, truth = chosen(side, size, depth, features, stride, rounded=True)
    assert form in str(jax.make_jaxpr(program)(*arguments))
    found = jax.jit(program)(*arguments)
    assert found.dtype == jnp.float32
    assert_close(found, truth, 2**-7)
    with plain():
        assert "bf16" in str(jax.make_jaxpr(program)(*arguments))


@pytest.mark.parametrize("form", [patch_product, winograd])
def test_gradients_of_rounded_forms_are_near_those_of_the_convolution(form):
    x, kernel = drawn((8, 8), 3, 5, 7)
    weight = np.random.default_rng(1).standard_normal((2, 8, 8, 7)).astype(np.float32)
    rounded = functools.partial(form, pad=1, rounded=True)
    forms = (rounded, functools.partial(direct, pad=1))
    found, truth = (jax.grad(lambda *xk, f=f: jnp.sum(weight * f(*xk)), (0, 1))(x, kernel) for f in forms)
    for each, other in zip(found, truth, strict=True):
        assert each.dtype == jnp.float32
        assert_close(each, np.asarray(other), 2**-6)
        assert np.abs(each - other).max() > 0


def test_a_program_for_a_converter_has_plain_convolutions():
    x, kernel = drawn((32, 32), 3, 64, 128)
    with plain():
        text = str(jax.make_jaxpr(lambda x, k: convolve(x, k, 1, 1))(x, kernel))
    assert "platform_index" not in text and "conv_general_dilated" in text


def test_gpus_get_no_product_of_a_strided_slice():
    """XLA of JAX 0.11 ends the process there."""
    x, kernel = drawn((8, 8), 1, 4, 6)
    lowered = jax.jit(lambda x, k: convolve(x, k, 2)).trace(x, kernel).lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.convolution" in lowered and "dot_general" not in lowered
