"""Tiles: large images are cut into overlapping parts of one size, and the maps of the parts are blended.

For a detector a tile is an image, so every detector can be fitted on tiles. Memory is that of a batch of tiles, whatever the
size of the images.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from iadjax.data.dataset import Item
from iadjax.errors import UserError

__all__ = ["blend", "cut", "positions", "tiled"]


@lru_cache(maxsize=16)
def positions(size: tuple[int, int], tile: tuple[int, int], overlap: float) -> tuple[tuple[int, int], ...]:
    """Positions (top, left) of the tiles that cover an image, evenly spaced, row by row.

    Args:
      size: (height, width) of the image.
      tile: (height, width) of a tile.
      overlap: the least fraction of a tile that its neighbour covers too, in [0, 1).

    Raises:
      UserError: the tile is larger than the image.
    """
    if tile[0] > size[0] or tile[1] > size[1]:
        raise UserError(
            f"data.tile {tile[0]}x{tile[1]} is larger than the image {size[0]}x{size[1]} after data.resize and data.crop; "
            "lower data.tile, or raise data.resize"
        )
    starts = []
    for length, part in zip(size, tile, strict=True):
        step = max(1, part - round(overlap * part))
        count = 1 + -(-(length - part) // step)
        starts.append([round(start) for start in np.linspace(0, length - part, count)])
    return tuple((top, left) for top in starts[0] for left in starts[1])


def tiled(items: Sequence[Item], size: tuple[int, int], tile: tuple[int, int], overlap: float) -> list[Item]:
    """Every item once for each of its tiles; arguments and errors as `positions`."""
    return [item._replace(tile=position) for item in items for position in positions(size, tile, overlap)]


def cut(array: np.ndarray, position: tuple[int, int], tile: tuple[int, int]) -> np.ndarray:
    """The tile `[h, w, ...]` at `position` (top, left) of an array `[H, W, ...]`."""
    return array[position[0] : position[0] + tile[0], position[1] : position[1] + tile[1]]


def blend(maps: Sequence[np.ndarray], size: tuple[int, int], tile: tuple[int, int], overlap: float) -> np.ndarray:
    """The map of the whole image. Overlapping tiles are averaged with weights that fall linearly towards their edges.

    Args:
      maps: `[h, w]` float32 each, in the order of `positions`.
      size, tile, overlap: as for `positions`.

    Returns:
      `[H, W]` float32; where only one tile is, its own values.
    """
    rows, columns = (np.minimum(np.arange(1, part + 1), np.arange(part, 0, -1)) for part in tile)
    weight = (rows[:, None] * columns).astype(np.float64)
    total, weights = np.zeros(size), np.zeros(size)
    for position, values in zip(positions(size, tile, overlap), maps, strict=True):
        window = (slice(position[0], position[0] + tile[0]), slice(position[1], position[1] + tile[1]))
        total[window] += weight * values
        weights[window] += weight
    return (total / weights).astype(np.float32)
