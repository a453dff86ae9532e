"""Convolutions by the fastest algorithm of the platform; for `nn.layers.Conv`.

XLA:CPU is slow for wide kernels over small maps and for gradients with respect to kernels. In these cases CPUs use a matrix
product of patches, or Winograd's algorithm. The choice depends on the shape of one image, on whether the kernel is frozen
(`cpu.prepared`) and on whether gradients are taken. It never depends on the batch.
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
from iadjax.parallel.axis import num_shards

__all__ = ["convolve", "direct"]


# measured on two cores (docs/dev/speed_history.md); for one image, so that no score depends on the batch
_POSITIONS = 256

# keyed by `rounded`: XLA:CPU multiplies matrices twice as fast in bfloat16, but does not convolve faster
_WINOGRAD_CHANNELS = {False: (64, 64), True: (64, 64)}

_PATCH_POSITIONS = {False: _POSITIONS, True: 1024}

_PATCH_CHANNELS = {False: (128, 256), True: (64, 128)}

# least channels of kernels of 3 x 3 whose gradient is a product of patches
_GRADIENT_CHANNELS = (32, 64)

_TILED_POSITIONS = 49

# kernels of images and of pairs of images, whose gradient is computed for parts of the batch
_FEW_CHANNELS, _MANY_POSITIONS, _PARTS = 6, 1024, 8

_PRODUCTS, _BYTES = 2**26, 2**28
# least multiply-adds of one image for which kernels of 2 x 2 have a gradient of their own
_GRADIENT_PRODUCTS = 2**22


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, pad: int = 0, rounded: bool = False, transformed: Any = None
) -> jax.Array:
    """A convolution with PyTorch's meaning of `stride` and `pad`.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, O]`, of the dtype of `x`; float32 if `rounded`.
      stride, pad: of rows and columns.
      rounded: factors may be rounded to bfloat16. CPUs round where that is faster, and sums stay float32. Other platforms
        always round factors and result.
      transformed: `transform_kernel(kernel)` if it was computed before; bfloat16 if `rounded`.

    Returns:
      `[B, H', W', O]`, of the dtype of `x`.
    """
    default = functools.partial(direct, stride=stride, pad=pad, rounded=rounded)
    if kernel.shape[:2] == (1, 1) and not pad:

        def products(x, kernel):
            return product(x[:, ::stride, ::stride], kernel[0, 0], rounded)

        # XLA of JAX 0.11.2 ends the process on GPUs where a product takes a reshaped slice with a stride
        return products(x, kernel) if stride == 1 else by_platform(x, kernel, cpu=products, default=default)
    sides = [(side + 2 * pad - size) // stride + 1 for side, size in zip(x.shape[1:3], kernel.shape[:2], strict=True)]
    positions = math.prod(sides)
    tiles = functools.partial(winograd, pad=pad, rounded=rounded)
    fits = stride == 1 and pad < len(kernel) and x.dtype == jnp.float32 and _fits_winograd(kernel.shape, positions)
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
        # tiles take ten times the bytes of the input, and their gradient is a sum of sixteen padded arrays
        cpu = _in_training(tiles, tiles, tiles, functools.partial(_of_input, pad=pad, rounded=rounded))
    elif positions <= _PATCH_POSITIONS[rounded] and _wide(kernel.shape, _PATCH_CHANNELS[rounded]):
        patches = functools.partial(patch_product, stride=stride, pad=pad, rounded=rounded)
        # patches of rounded pixels take half the bytes, but their gradient would be summed in bfloat16
        value = (lambda x, kernel: patches(x.astype(jnp.bfloat16), kernel)) if rounded else patches
        # transforming a kernel is worth its time only in training, for a whole batch
        trained = tiles if fits and wide else patches
        cpu = value if trained is value else _in_training(value, trained, trained)
    elif rounded:
        cpu = functools.partial(direct, stride=stride, pad=pad)
    elif kernel.shape[:2] == (2, 2) and positions * math.prod(kernel.shape) >= _GRADIENT_PRODUCTS:
        # XLA:CPU takes fifty times as long for the gradient of such a kernel, transposed convolutions of 4 x 4 among them
        cpu = _in_training(default, default, functools.partial(patch_product, stride=stride, pad=pad))
    elif _slow_gradient(kernel.shape, stride, positions):
        cpu = _in_training(default, default, functools.partial(patch_product, stride=stride, pad=pad))
    elif kernel.shape[2] <= _FEW_CHANNELS and positions >= _MANY_POSITIONS and num_shards() == 1:
        cpu = _in_training(default, default, functools.partial(_in_parts, convolution=default))
    else:
        return default(x, kernel)
    return by_platform(x, kernel, cpu=cpu, default=default)


def _fits_winograd(shape: Sequence[int], positions: int) -> bool:
    height, width, depth, features = shape
    if not has_points(shape) or positions < _TILED_POSITIONS:
        return False
    # a smaller one saves less than 0.2 ms per call and takes up to two seconds longer to compile
    if positions * height * width * depth * features < _PRODUCTS:
        return False
    # bytes of tiles and products: a tile covers four positions, a number takes four bytes
    return positions * (height + 1) ** 2 * (depth + features) <= _BYTES


def _slow_gradient(shape: Sequence[int], stride: int, positions: int) -> bool:
    """Whether XLA:CPU takes up to four times as long for the gradient of a kernel as a product of patches."""
    many = stride > 1 or positions >= _MANY_POSITIONS
    fits = positions * math.prod(shape[:3]) * 4 <= _BYTES
    return shape[:2] == (3, 3) and many and fits and _wide(shape, _GRADIENT_CHANNELS)


def _in_training(value: Callable, trained: Callable, of_kernel: Callable, of_input: Callable | None = None) -> Callable:
    """`value(x, kernel)`; where gradients are taken `trained`, with the gradient of `of_kernel` for the kernel.

    The gradient for the input is `of_input(y, kernel)`, or that of `trained`.
    """
    form = jax.custom_vjp(value)

    def backward(factors, y):
        x, kernel = factors
        dx = of_input(y, kernel) if of_input else jax.vjp(lambda x: trained(x, kernel), x)[1](y)[0]
        (dkernel,) = jax.vjp(lambda kernel: of_kernel(x, kernel), kernel)[1](y)
        return dx, dkernel

    form.defvjp(lambda x, kernel: (trained(x, kernel), (x, kernel)), backward)
    return form


def _of_input(y: jax.Array, kernel: jax.Array, pad: int, rounded: bool) -> jax.Array:
    """The gradient of a convolution of stride 1 for its input: Winograd's form with the turned kernel."""
    return winograd(y, kernel[::-1, ::-1].swapaxes(2, 3), len(kernel) - 1 - pad, rounded)


def _in_parts(x: jax.Array, kernel: jax.Array, convolution: Callable) -> jax.Array:
    """`convolution` of parts of the batch: the gradient of XLA:CPU for a kernel moves the batch of its operands last."""
    size = -(-len(x) // _PARTS)
    return jnp.concatenate([convolution(x[i : i + size], kernel) for i in range(0, len(x), size)])


def _wide(shape: Sequence[int], least: tuple[int, int]) -> bool:
    return shape[2] >= least[0] and shape[3] >= least[1]


def direct(x: jax.Array, kernel: jax.Array, stride: int = 1, pad: int = 0, rounded: bool = False) -> jax.Array:
    """XLA's own convolution; arguments as `convolve`."""
    factors = (x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)) if rounded else (x, kernel)
    y = jax.lax.conv_general_dilated(
        *factors, (stride, stride), ((pad, pad), (pad, pad)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return y.astype(x.dtype)
