"""Positions of patches on any grid: learned tables that are resized, and rotary ones."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["RULES", "position_matrix", "resize_table", "rotary", "rotate_pairs"]

RULES = ("offset", "antialias", "exact", "bilinear")
"""How a table is resized: "offset" is bicubic at scale (n + 0.1) / source, by DINO's and DINOv2's code; "antialias" is bicubic
with a filter that widens where the target is smaller, by DINOv2's code for registers, timm and open_clip; "exact" is bicubic
without either, by MuSc's copy of open_clip; "bilinear" is AnomalyCLIP's."""


def resize_table(table: jax.Array, grid: int, height: int, width: int, rule: str) -> jax.Array:
    """`[grid^2, C]` positions on another grid, `[1, height, width, C]`; `rule` is one of `RULES`."""
    table = table.reshape(grid, grid, -1)
    if (height, width) != (grid, grid):
        rows, columns = (jnp.asarray(position_matrix(grid, n, rule)) for n in (height, width))
        table = jnp.einsum("ia,jb,abc->ijc", rows, columns, table, precision="highest")
    return table[None]


@lru_cache
def position_matrix(source: int, target: int, rule: str) -> np.ndarray:
    """`[target, source]` float32 weights of the resize of positions by one of `RULES`, as PyTorch's interpolation has them.

    "offset" and "exact" take four taps (a = -0.75, the border repeats). "antialias" has a = -0.5 and is cut off at the border.
    """
    if rule == "antialias":
        scale = source / target
        width = max(1.0, scale)
        centre = (np.arange(target)[:, None] + 0.5) * scale
        weights = _cubic((np.arange(source)[None] + 0.5 - centre) / width, -0.5)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    position = (np.arange(target) + 0.5) * source / (target + 0.1 * (rule == "offset")) - 0.5
    weights = np.zeros((target, source))
    for offset in (0, 1) if rule == "bilinear" else range(-1, 3):
        tap = np.floor(position).astype(int) + offset
        share = 1 - np.abs(position - tap) if rule == "bilinear" else _cubic(position - tap, -0.75)
        np.add.at(weights, (np.arange(target), np.clip(tap, 0, source - 1)), share)
    return weights.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel (1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@lru_cache
def rotary(height: int, width: int, depth: int, base: float = 100.0) -> tuple[np.ndarray, np.ndarray]:
    """DINOv3's rotary positions (Simeoni et al., arXiv 2508.10104): sine and cosine, `[height * width, depth]` float32.

    Patch centres have coordinates in [-1, 1] along each side. `depth` is that of a head; a quarter of it are the periods, which
    grow from 1 towards `base`. Rows come first, then columns, then both again.
    """
    periods = base ** (np.arange(depth // 4) / (depth // 4))
    y, x = (2 * (np.arange(side) + 0.5) / side - 1 for side in (height, width))
    centres = np.stack(np.meshgrid(y, x, indexing="ij"), axis=-1).reshape(-1, 2, 1)
    angles = np.tile((2 * np.pi * centres / periods).reshape(height * width, -1), 2)
    return np.sin(angles).astype(np.float32), np.cos(angles).astype(np.float32)


def rotate_pairs(x: jax.Array, sine: jax.Array, cosine: jax.Array) -> jax.Array:
    """Turns the pairs (i, i + depth / 2) of the last patches of `x [B, N, heads, depth]`; tokens before them stay."""
    first = x.shape[1] - sine.shape[0]
    patches = x[:, first:]
    low, high = jnp.split(patches, 2, axis=-1)
    turned = patches * cosine[None, :, None] + jnp.concatenate([-high, low], axis=-1) * sine[None, :, None]
    return jnp.concatenate([x[:, :first], turned], axis=1)
