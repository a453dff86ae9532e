"""Convolutions in the form that is fastest on the platform, all exact; for `nn.layers.Conv`.

XLA:CPU convolves at the speed of its matrix products while a network is small, but neither wide kernels over small maps nor
the gradient with respect to a kernel. Where that is so, one of two forms made of products takes its place on CPUs. Which one
depends on the shape of one image, on whether the kernel is frozen (`cpu.prepared`) and on whether gradients are taken.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from iadjax.cpu.dispatch import by_platform
from iadjax.cpu.patches import patch_product, product
from iadjax.cpu.winograd import has_points, tile_products, winograd

__all__ = ["convolve", "direct"]


# measured on two cores with JAX 0.10 and 0.12 (docs/speed.md); sizes of one image, so that no score depends on the batch
_POSITIONS = 256

# by whether products are rounded: in bfloat16 they take half as long, but XLA:CPU convolves no faster in it
_WINOGRAD_CHANNELS = {False: (64, 128), True: (64, 64)}

_PATCH_POSITIONS = {False: _POSITIONS, True: 1024}

_PATCH_CHANNELS = {False: (128, 256), True: (64, 128)}

# kernels whose gradient alone is worth it
_GRADIENT_CHANNELS = (64, 64)

_TILED_POSITIONS = 49

_PRODUCTS, _BYTES = 2**26, 2**28


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, pad: int = 0, rounded: bool = False, transformed: Any = None
) -> jax.Array:
    """A convolution, `[B, H, W, C]` and `[h, w, C, O]` to `[B, H', W', O]`, as PyTorch counts `stride` and `pad`.

    Args:
      x, kernel: of one dtype, which is that of the result; float32 where `rounded`.
      stride, pad: of rows and columns.
      rounded: products may be of factors rounded to bfloat16. On CPUs they are where that is faster, with sums in float32;
        elsewhere always, and the result is rounded as well.
      transformed: `transform_kernel(kernel)`, if that is at hand; in bfloat16 where `rounded`.
    """
    if kernel.shape[:2] == (1, 1) and not pad:
        return product(x[:, ::stride, ::stride], kernel[0, 0], rounded)
    default = functools.partial(direct, stride=stride, pad=pad, rounded=rounded)
    sides = [(side + 2 * pad - size) // stride + 1 for side, size in zip(x.shape[1:3], kernel.shape[:2], strict=True)]
    positions = math.prod(sides)
    tiles = functools.partial(winograd, pad=pad, rounded=rounded)
    fits = stride == 1 and x.dtype == jnp.float32 and _fits_winograd(kernel.shape, positions)
    wide = _wide(kernel.shape, _WINOGRAD_CHANNELS[rounded])
    if transformed is not None and fits:
        return by_platform(
            x,
            kernel,
            transformed,
            cpu=lambda x, _, transformed: tile_products(x, transformed, pad, rounded),
            default=lambda x, kernel, _: default(x, kernel),
        )
    if fits and wide and positions >= _POSITIONS:
        # its tiles and products are ten times the input: computed again for the gradient rather than kept
        cpu = jax.checkpoint(tiles)
    elif positions <= _PATCH_POSITIONS[rounded] and _wide(kernel.shape, _PATCH_CHANNELS[rounded]):
        patches = functools.partial(patch_product, stride=stride, pad=pad, rounded=rounded)
        # rounded first they are half the bytes to write, but their gradient would be added up in bfloat16
        value = (lambda x, kernel: patches(x.astype(jnp.bfloat16), kernel)) if rounded else patches
        # transforming a kernel takes longer than it saves, unless there are gradients, which come with a batch
        trained = tiles if fits and wide else patches
        cpu = value if trained is value else _in_training(value, trained, trained)
    elif rounded:
        cpu = functools.partial(direct, stride=stride, pad=pad)
    elif fits and positions >= _POSITIONS and _wide(kernel.shape, _GRADIENT_CHANNELS):
        cpu = _in_training(default, default, tiles)
    else:
        return default(x, kernel)
    return by_platform(x, kernel, cpu=cpu, default=default)


def _fits_winograd(shape: Sequence[int], positions: int) -> bool:
    height, width, depth, features = shape
    if not has_points(shape) or positions < _TILED_POSITIONS:
        return False
    # a smaller one saves less than 0.2 ms a call, and its hundred small programs take a second or two to compile
    if positions * height * width * depth * features < _PRODUCTS:
        return False
    # of tiles and products: a tile per four positions, four bytes per number
    return positions * (height + 1) ** 2 * (depth + features) <= _BYTES


def _in_training(value: Callable, trained: Callable, of_kernel: Callable) -> Callable:
    """`value(x, kernel)`, but where gradients are taken `trained`, with the gradient of `of_kernel` for the kernel."""
    form = jax.custom_vjp(value)

    def backward(factors, y):
        x, kernel = factors
        (dx,) = jax.vjp(lambda x: trained(x, kernel), x)[1](y)
        (dkernel,) = jax.vjp(lambda kernel: of_kernel(x, kernel), kernel)[1](y)
        return dx, dkernel

    form.defvjp(lambda x, kernel: (trained(x, kernel), (x, kernel)), backward)
    return form


def _wide(shape: Sequence[int], least: tuple[int, int]) -> bool:
    return shape[2] >= least[0] and shape[3] >= least[1]


def direct(x: jax.Array, kernel: jax.Array, stride: int = 1, pad: int = 0, rounded: bool = False) -> jax.Array:
    """The convolution of XLA."""
    factors = (x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)) if rounded else (x, kernel)
    y = jax.lax.conv_general_dilated(
        *factors, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.astype(x.dtype)
