"""Levels of a network on overlapping tiles of an image, put together token by token."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from iadjax.errors import UserError

__all__ = ["stitched_levels", "tile_layout"]


def tile_layout(length: int, tile: int, overlap: int) -> list[tuple[int, int, int]]:
    """How tiles cover an axis: evenly, overlapping by at least twice `overlap`; each keeps what is nearer to its middle.

    Args:
      length, tile, overlap: in the same unit; `tile` at most `length` and more than twice `overlap`.

    Returns:
      (start, first, last) of each tile: it begins at `start` and keeps `[first, last)` of its own.
    """
    number = -(-(length - tile) // (tile - 2 * overlap)) + 1
    starts = [i * (length - tile) // max(1, number - 1) for i in range(number)]
    shared = [before + tile - after for before, after in zip(starts, starts[1:], strict=False)]
    first = [0, *(-(-each // 2) for each in shared)]
    last = [*(tile - each // 2 for each in shared), tile]
    return list(zip(starts, first, last, strict=True))


def stitched_levels(
    features: Callable[[jax.Array], Sequence[jax.Array]], image: jax.Array, tile: int, overlap: int
) -> tuple[jax.Array, ...]:
    """The levels of an image, computed on square tiles.

    Args:
      features: `image [B, tile, tile, 3] -> levels [B, t, t, C]`.
      image: `[B, H, W, 3]`.
      tile, overlap: in pixels, multiples of the coarsest level's step.

    Returns:
      `[B, h, w, C]` for each level.

    Raises:
      UserError: a tile that is larger than the image, or sizes that are no multiples of the step.
    """
    batch, height, width, _ = image.shape
    shapes = jax.eval_shape(features, jax.ShapeDtypeStruct((1, tile, tile, 3), image.dtype))
    step = tile // min(shape.shape[1] for shape in shapes)
    if min(height, width) < tile or any(size % step for size in (height, width, tile, overlap)):
        raise UserError(
            f"tiles of {tile} pixels with an overlap of {overlap} do not fit an image of {height}x{width}: it must be at least "
            f"as large, and all must be multiples of {step}; set data.crop_multiple={step}, or a smaller detector.tile"
        )
    rows, columns = (tile_layout(size // step, tile // step, overlap // step) for size in (height, width))
    parts = [image[:, y * step : y * step + tile, x * step : x * step + tile] for y, _, _ in rows for x, _, _ in columns]
    stitched = []
    for level in features(jnp.concatenate(parts)):
        scale = level.shape[1] * step // tile
        pieces = level.reshape(len(rows), len(columns), batch, *level.shape[1:])
        lines = []
        for i, (_, top, bottom) in enumerate(rows):
            line = [pieces[i, j, :, :, left * scale : right * scale] for j, (_, left, right) in enumerate(columns)]
            lines.append(jnp.concatenate(line, axis=2)[:, top * scale : bottom * scale])
        stitched.append(jnp.concatenate(lines, axis=1))
    return tuple(stitched)
