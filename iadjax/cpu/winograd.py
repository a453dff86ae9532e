"""Winograd's convolution algorithm for CPUs: fewer multiplications."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.cpu.patches import matmul

__all__ = ["has_points", "tile_products", "transform_kernel", "transforms", "winograd", "worth_transforming"]


# the least numbers of input and output channels
_TILED_CHANNELS = (64, 64)

_POINTS = {3: (0, 1, -1), 4: (0, 1, -1, 2)}


def worth_transforming(shape: Sequence[int]) -> bool:
    """Whether CPUs use Winograd's algorithm for a frozen kernel of shape `[h, w, C, O]` at stride 1."""
    return len(shape) == 4 and has_points(shape) and shape[2] >= _TILED_CHANNELS[0] and shape[3] >= _TILED_CHANNELS[1]


def has_points(shape: Sequence[int]) -> bool:
    """Whether there is an algorithm for kernels of this shape: 3 x 3 or 4 x 4."""
    return shape[0] == shape[1] and shape[0] in _POINTS


def winograd(x: jax.Array, kernel: jax.Array, pad: int = 0, rounded: bool = False) -> jax.Array:
    """Convolution by Winograd's minimal filtering F(2 x 2, r x r), stride 1 (Lavin & Gray, CVPR 2016, eq. 8).

    A tile of 2 x 2 outputs takes (r + 1)^2 matrix products instead of 4 r^2: 2.25 times fewer for r = 3, 2.56 times for r = 4,
    forward and in both gradients. In float32, r = 3 rounds like the direct convolution. r = 4 rounds ten times as much, 4e-6
    of the largest output.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[r, r, C, O]`, r = 3 or 4.
      pad: zeros on each side.
      rounded: transformed tiles and kernels are rounded to bfloat16; sums stay float32.

    Returns:
      `[B, H + 2 pad - r + 1, W + 2 pad - r + 1, O]`.
    """
    return tile_products(x, transform_kernel(kernel), pad, rounded)


def transform_kernel(kernel: Any) -> list[Any]:
    """The transformed kernel G g G^T: (r + 1)^2 matrices `[C, O]`, stacked into a few arrays `[n, C, O]`.

    Each array becomes one batched matrix product, which XLA:CPU computes faster than n products. A single array for all
    matrices is slower for large batches, because it takes long to write the tiles.

    Args:
      kernel: `[r, r, C, O]`, NumPy or JAX.
    """
    r, (_, g, _) = len(kernel), transforms(len(kernel))
    flat, stack = kernel.reshape(r * r, *kernel.shape[2:]), np.stack
    if not isinstance(kernel, np.ndarray):
        # the gradient of slices would add up r^2 padded arrays as large as the kernel, that of a split puts its parts together
        flat, stack = [tap[0] for tap in jax.lax.split(flat, (1,) * r * r)], jnp.stack
    rows = _both_sides(g, [[flat[r * i + j] for j in range(r)] for i in range(r)])
    return [stack([u for row in rows[i : i + 2] for u in row]) for i in range(0, r + 1, 2)]


def tile_products(x: jax.Array, kernels: list[jax.Array], pad: int, rounded: bool) -> jax.Array:
    """`winograd` with a kernel from `transform_kernel`."""
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
        products += [m.reshape(batch, rows, columns, -1) for m in matmul(v, u, rounded)]
    grid = [products[i : i + r + 1] for i in range(0, len(products), r + 1)]
    y = jnp.stack([jnp.stack(row, axis=3) for row in _both_sides(a, grid)], axis=2)
    return y.reshape(batch, 2 * rows, 2 * columns, -1)[:, : sides[0], : sides[1]]


@functools.cache
def transforms(r: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A^T `[2, r + 1]`, G `[r + 1, r]` and B^T `[r + 1, r + 1]` of F(2, r): A^T [(G g) * (B^T d)] is a filter g over d.

    Toom-Cook: polynomials are multiplied by way of their values at r small numbers and at infinity.
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
    """M X M^T, where the elements of X are arrays. Written as sums, because XLA fuses sums but not small matrix products."""
    half = [[_combine(row, column) for column in zip(*grid, strict=True)] for row in matrix]
    return [[_combine(row, line) for row in matrix] for line in half]


def _combine(coefficients: np.ndarray, arrays: Sequence[jax.Array]) -> Any:
    terms = [(float(c), x) for c, x in zip(coefficients, arrays, strict=True) if c]
    return sum((x if c == 1 else -x if c == -1 else c * x) for c, x in terms)
