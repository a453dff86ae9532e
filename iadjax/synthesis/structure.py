"""Textures or shuffled pieces of the image itself in Perlin-shaped regions (MemSeg, Yang et al., 2022, section 3.2)."""

import numpy as np

from iadjax.errors import UserError
from iadjax.synthesis.perlin_texture import blended, distort, perlin_mask
from iadjax.synthesis.source import Source

__all__ = ["check_foreground", "foreground_mask", "shuffled_grid", "structure_anomaly"]

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def structure_anomaly(
    rng: np.random.Generator,
    image: np.ndarray,
    source: Source,
    *,
    foreground: str = "all",
    cells: int = 8,
    opacity: tuple[float, float] = (0.15, 1.0),
) -> tuple[np.ndarray, np.ndarray]:
    """A synthetic anomaly: a texture with probability 1/2, or else the distorted image whose pieces have changed places.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      source: of textures.
      foreground: where it may be, see `foreground_mask`.
      cells: pieces along each axis.
      opacity: range of the opacity of the anomaly.

    Returns:
      The image with the anomaly, `[H, W, 3]` float32, and its region, `[H, W]` uint8 in {0, 1}; it may be empty.
    """
    size = image.shape[:2]
    mask = perlin_mask(rng, size) & foreground_mask(image, foreground)
    anomaly = source(rng, size) if rng.random() < 0.5 else shuffled_grid(rng, distort(rng, image), cells)
    return blended(image, anomaly, mask, 1 - rng.uniform(*opacity)), mask.astype(np.uint8)


def shuffled_grid(rng: np.random.Generator, image: np.ndarray, cells: int) -> np.ndarray:
    """The image `[H, W, 3]` cut into `cells` x `cells` pieces in random order; a rest that fills no piece stays."""
    height, width = (side // cells for side in image.shape[:2])
    pieces = image[: cells * height, : cells * width].reshape(cells, height, cells, width, 3).swapaxes(1, 2)
    pieces = rng.permutation(pieces.reshape(-1, height, width, 3)).reshape(pieces.shape).swapaxes(1, 2)
    shuffled = image.copy()
    shuffled[: cells * height, : cells * width] = pieces.reshape(cells * height, cells * width, 3)
    return shuffled


def check_foreground(kind: str) -> None:
    """A UserError where `foreground_mask` has no such kind."""
    if kind not in ("all", "dark", "bright"):
        raise UserError(f"detector.foreground must be 'all', 'dark' or 'bright', got {kind!r}")


def foreground_mask(image: np.ndarray, kind: str) -> np.ndarray:
    """Pixels of an object, `[H, W]` bool, by Otsu's threshold of the grey image (1979).

    Args:
      image: `[H, W, 3]` float32 in [0, 1].
      kind: "dark" objects are below the threshold, "bright" ones above it; "all": every pixel.
    """
    if kind == "all":
        return np.ones(image.shape[:2], bool)
    grey = np.clip(np.round(255 * image @ _GREY), 0, 255).astype(np.uint8)
    count = np.bincount(grey.reshape(-1), minlength=256).astype(np.float64)
    below, total = np.cumsum(count), np.cumsum(count * np.arange(256))
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (total / below - (total[-1] - total) / above) ** 2
    threshold = int(np.argmax(np.nan_to_num(between, posinf=0.0)))
    return grey <= threshold if kind == "dark" else grey > threshold
