"""Convolutions in the form that is fastest on the platform, all exact; for `nn.layers.Conv`.

XLA:CPU convolves at the speed of its matrix products while a network is small, but neither wide kernels over small maps nor
the gradient with respect to a kernel. Where that is so, one of two forms made of products takes its place on CPUs. Which one
depends on the shape of one image, on whether the kernel is frozen (`iadjax.frozen`) and on whether gradients are taken.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.platforms import by_platform

__all__ = ["convolve", "direct", "patch_product", "product", "transform_kernel", "winograd", "worth_transforming"]

# measured on two cores with JAX 0.10 and 0.12 (docs/speed.md); sizes of one image, so that no score depends on the batch
_POSITIONS = 256
# by whether products are rounded: in bfloat16 they take half as long, but XLA:CPU convolves no faster in it
_WINOGRAD_CHANNELS = {False: (64, 128), True: (64, 64)}
_PATCH_POSITIONS = {False: _POSITIONS, True: 1024}
_PATCH_CHANNELS = {False: (128, 256), True: (64, 128)}
# kernels whose gradient alone is worth it
_GRADIENT_CHANNELS = (64, 64)
# with a kernel that is transformed already; the positions also where gradients are taken
_TILED_CHANNELS = (64, 64)
_TILED_POSITIONS = 49
_PRODUCTS, _BYTES = 2**26, 2**28
_POINTS = {3: (0, 1, -1), 4: (0, 1, -1, 2)}


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
            cpu=lambda x, _, transformed: _tile_products(x, transformed, pad, rounded),
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
    if not _has_points(shape) or positions < _TILED_POSITIONS:
        return False
    # a smaller one saves less than 0.2 ms a call, and its hundred small programs take a second or two to compile
    if positions * height * width * depth * features < _PRODUCTS:
        return False
    # of tiles and products: a tile per four positions, four bytes per number
    return positions * (height + 1) ** 2 * (depth + features) <= _BYTES


def worth_transforming(shape: Sequence[int]) -> bool:
    """Whether CPUs take Winograd's form for a kernel `[h, w, C, O]` that is transformed once, at stride 1."""
    return len(shape) == 4 and _has_points(shape) and _wide(shape, _TILED_CHANNELS)


def _has_points(shape: Sequence[int]) -> bool:
    return shape[0] == shape[1] and shape[0] in _POINTS


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


def patch_product(x: jax.Array, kernel: jax.Array, stride: int = 1, pad: int = 0, rounded: bool = False) -> jax.Array:
    """One product with the neighbourhoods of all positions; `rounded`: of rounded factors, with sums in float32."""
    height, width, _, features = kernel.shape
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    bottom, right = x.shape[1] - height + 1, x.shape[2] - width + 1
    shifted = [x[:, i : i + bottom : stride, j : j + right : stride] for i in range(height) for j in range(width)]
    return _multiply(jnp.concatenate(shifted, axis=-1), kernel.reshape(-1, features), rounded)


def product(x: jax.Array, matrix: jax.Array, rounded: bool = False) -> jax.Array:
    """`[..., C]` times `[C, O]`; `rounded` as in `convolve`."""
    if not rounded:
        return _multiply(x, matrix)
    half = jnp.bfloat16
    default = lambda x, matrix: _multiply(x.astype(half), matrix.astype(half)).astype(x.dtype)  # noqa: E731
    return by_platform(x, matrix, cpu=functools.partial(_multiply, rounded=True), default=default)


def _multiply(x: jax.Array, matrix: jax.Array, rounded: bool = False) -> jax.Array:
    """Of two axes, because XLA:CPU takes two or three times as long for a gradient over more."""
    return _matmul(x.reshape(-1, x.shape[-1]), matrix, rounded).reshape(*x.shape[:-1], matrix.shape[-1])


def _matmul(x: jax.Array, matrix: jax.Array, rounded: bool) -> jax.Array:
    return _rounded_product(x, matrix) if rounded else x @ matrix


@jax.custom_vjp
def _rounded_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """x `[..., N, C]` times `[..., C, O]`, factors rounded to bfloat16, sums in float32, and so in both gradients."""
    x, matrix = x.astype(jnp.bfloat16), matrix.astype(jnp.bfloat16)
    return jnp.matmul(x, matrix, preferred_element_type=jnp.float32)


def _rounded_forward(x: jax.Array, matrix: jax.Array) -> tuple[jax.Array, tuple]:
    return _rounded_product(x, matrix), (x, matrix)


def _rounded_backward(factors: tuple, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, matrix = factors
    return _rounded_product(y, matrix.mT).astype(x.dtype), _rounded_product(x.mT, y).astype(matrix.dtype)


_rounded_product.defvjp(_rounded_forward, _rounded_backward)


def winograd(x: jax.Array, kernel: jax.Array, pad: int = 0, rounded: bool = False) -> jax.Array:
    """Winograd's minimal filtering F(2 x 2, r x r) (Lavin & Gray, CVPR 2016, eq. 8) for kernels of 3 x 3 or 4 x 4 at stride 1.

    Every tile of 2 x 2 outputs takes (r + 1)^2 products of channels instead of 4 r^2: 2.25 times fewer for 3 x 3 and 2.56
    times for 4 x 4, forward and in both gradients. Rounding in float32: that of the direct form for 3 x 3, ten times it for
    4 x 4 (4e-6 of the largest output). `rounded`: the transformed tiles and kernels are, and only they.
    """
    return _tile_products(x, transform_kernel(kernel), pad, rounded)


def transform_kernel(kernel: Any) -> list[Any]:
    """G g G^T for Winograd's form: the (r + 1)^2 matrices `[C, O]` of its products in a few arrays `[n, C, O]`.

    Of NumPy's or JAX's arrays. An array is one product: XLA:CPU takes less time for it than for its n products one by one, but
    with all of them in one array the tiles of a large batch take longer to write than that saves.
    """
    r, (_, g, _) = len(kernel), transforms(len(kernel))
    flat, stack = kernel.reshape(r * r, *kernel.shape[2:]), np.stack
    if not isinstance(kernel, np.ndarray):
        # the gradient of slices would add up r^2 padded arrays as large as the kernel, that of a split puts its parts together
        flat, stack = [tap[0] for tap in jax.lax.split(flat, (1,) * r * r)], jnp.stack
    rows = _both_sides(g, [[flat[r * i + j] for j in range(r)] for i in range(r)])
    return [stack([u for row in rows[i : i + 2] for u in row]) for i in range(0, r + 1, 2)]


def _tile_products(x: jax.Array, kernels: list[jax.Array], pad: int, rounded: bool) -> jax.Array:
    r, (batch, height, width, depth) = math.isqrt(sum(map(len, kernels))) - 1, x.shape
    a, _, b = transforms(r)
    sides = height + 2 * pad - r + 1, width + 2 * pad - r + 1
    rows, columns = (-(-side // 2) for side in sides)
    # tiles overlap by r - 1 pixels; as 2 x 2 blocks each of their pixels is a plain slice
    blocks = rows + r // 2, columns + r // 2
    after = [2 * number - side - pad for number, side in zip(blocks, (height, width), strict=True)]
    x = jnp.pad(x, ((0, 0), (pad, after[0]), (pad, after[1]), (0, 0))).reshape(batch, blocks[0], 2, blocks[1], 2, depth)
    pixel = [
        [x[:, i // 2 : i // 2 + rows, i % 2, j // 2 : j // 2 + columns, j % 2] for j in range(r + 1)] for i in range(r + 1)
    ]
    tiles = [tile.reshape(-1, depth) for row in _both_sides(b, pixel) for tile in row]
    products = []
    for u in kernels:
        v = jnp.stack(tiles[len(products) : len(products) + len(u)])
        products += [m.reshape(batch, rows, columns, -1) for m in _matmul(v, u, rounded)]
    grid = [products[i : i + r + 1] for i in range(0, len(products), r + 1)]
    y = jnp.stack([jnp.stack(row, axis=3) for row in _both_sides(a, grid)], axis=2)
    return y.reshape(batch, 2 * rows, 2 * columns, -1)[:, : sides[0], : sides[1]]


@functools.cache
def transforms(r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T `[2, r + 1]`, G `[r + 1, r]` and B^T `[r + 1, r + 1]` of F(2, r): A^T [(G g) * (B^T d)] is a filter g over d.

    Toom and Cook's scheme: polynomials are multiplied by their values at r small numbers and at infinity.
    """
    points = np.array(_POINTS[r], np.float64)
    a, g, b = np.zeros((2, r + 1)), np.zeros((r + 1, r)), np.zeros((r + 1, r + 1))
    a[0, :r], a[1, :r], a[1, r] = 1, points, 1
    for i, point in enumerate(points):
        others = np.delete(points, i)
        g[i] = point ** np.arange(r) / np.prod(point - others)
        b[i, :r] = np.poly(others)[::-1]
    g[r, r - 1], b[r] = 1, np.poly(points)[::-1]
    return a, g, b


def _both_sides(matrix: np.ndarray, grid: list[list[jax.Array]]) -> list[list[jax.Array]]:
    """M X M^T, the elements of X being arrays; written out, because XLA fuses sums but not products with a small matrix."""
    half = [[_combine(row, column) for column in zip(*grid, strict=True)] for row in matrix]
    return [[_combine(row, line) for row in matrix] for line in half]


def _combine(coefficients: np.ndarray, arrays: Sequence[jax.Array]) -> Any:
    terms = [(float(c), x) for c, x in zip(coefficients, arrays, strict=True) if c]
    return sum((x if c == 1 else -x if c == -1 else c * x) for c, x in terms)
