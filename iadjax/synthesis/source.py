"""Sources of foreign images: a folder (DTD, ImageNet), or drawn textures."""

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from iadjax.data.images import read_image
from iadjax.data.listing import images_below
from iadjax.errors import UserError
from iadjax.synthesis.perlin import perlin_noise

__all__ = ["draw_texture", "image_source"]

Source = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


def image_source(folder: str = "", crop: float = 1.0) -> Source:
    """Makes a function `(rng, (height, width)) -> image [H, W, 3] float32 in [0, 1]`.

    Args:
      folder: its images, of any size, also in folders below, are picked at random and resized (bilinear, antialiased).
        "" draws textures instead.
      crop: below 1 a random square of an image is resized instead of all of it. Its side is uniformly drawn: at least this
        part of the image's shorter side, at most all of it.

    Raises:
      UserError: `crop` is not in (0, 1]. When an image is drawn: the folder does not exist or holds no image; a fitted run
        does without it.
    """
    if not 0 < crop <= 1:
        raise UserError(f"the part of an image's shorter side must be in (0, 1], not {crop}")
    if not folder:
        return draw_texture

    def pick(rng, size):
        files = _images(folder)
        pixels = read_image(files[rng.integers(len(files))])
        pixels = pixels if pixels.dtype == np.uint8 else np.round(255 * pixels).astype(np.uint8)
        box = None
        if crop < 1:
            height, width = pixels.shape[:2]
            side = rng.uniform(crop, 1) * min(height, width)
            left, top = rng.uniform(0, width - side), rng.uniform(0, height - side)
            box = (left, top, left + side, top + side)
        resized = Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR, box)
        return np.asarray(resized, np.float32) / 255

    return pick


@functools.lru_cache(maxsize=8)
def _images(folder: str) -> tuple[Path, ...]:
    root = Path(folder).expanduser()
    found = images_below(root)
    if not found:
        raise UserError(f"there are no images in {folder!r}; give a folder of images, or leave it empty for drawn textures")
    return tuple(found)


def draw_texture(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """Draws a random texture: noise of several octaves as clouds, veins, stripes or cells, in up to three colours.

    Args:
      rng: draws it.
      size: (height, width).

    Returns:
      `[H, W, 3]` float32 in [0, 1].
    """
    octaves = rng.integers(2, 5)
    start = 2.0 ** rng.uniform(1, 4)
    noise = sum(
        0.5**i * perlin_noise(rng, size, tuple(min(each, round(start * 2**i)) for each in size)) for i in range(octaves)
    )
    kind = rng.integers(4)
    if kind == 1:
        noise = np.abs(noise) * 2 - 0.5
    elif kind == 2:
        angle, frequency = rng.uniform(0, np.pi), rng.uniform(4, 40)
        y, x = np.mgrid[: size[0], : size[1]] / max(size)
        noise = np.sin(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)) + 3 * noise)
    elif kind == 3:
        noise = np.sign(noise) * np.abs(noise) ** rng.uniform(0.1, 0.5)
    level = np.clip(0.5 + 0.5 * noise, 0, 1)[..., None]
    colours = rng.uniform(0, 1, (3, 3))
    image = np.where(
        level < 0.5,
        colours[0] + 2 * level * (colours[1] - colours[0]),
        colours[1] + (2 * level - 1) * (colours[2] - colours[1]),
    )
    grain = rng.uniform(0, 0.08) * rng.normal(size=(*size, 1))
    return np.clip(image + grain, 0, 1).astype(np.float32)
