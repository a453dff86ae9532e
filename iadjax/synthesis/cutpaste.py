"""CutPaste (Li et al., CVPR 2021, section 2.2): a patch of the image is pasted at another position of the same image."""

import numpy as np
from PIL import Image

from iadjax.synthesis.appearance import colour_jitter

__all__ = ["cutpaste", "cutpaste_3way", "cutpaste_scar"]


def cutpaste(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    area: tuple[float, float] = (0.02, 0.15),
    aspect: float = 0.3,
    jitter: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Pastes a rectangle of the image at another position, with its colours changed a little.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      area: range of the fraction of the image that the rectangle covers.
      aspect: the ratio of its sides is uniform over (aspect, 1) or over (1, 1 / aspect), with probability 1/2 each. One draw
        from (0.3, 3.3), as in some re-implementations, favours wide rectangles.
      jitter: largest change of brightness, contrast, saturation and hue.

    Returns:
      The image with the patch, `[H, W, 3]` float32, and where it was pasted, `[H, W]` uint8 in {0, 1}.
    """
    height, width = image.shape[:2]
    pixels = rng.uniform(*area) * height * width
    ratio = rng.uniform(aspect, 1) if rng.random() < 0.5 else rng.uniform(1, 1 / aspect)
    size = (
        int(np.clip(np.round(np.sqrt(pixels / ratio)), 1, height)),
        int(np.clip(np.round(np.sqrt(pixels * ratio)), 1, width)),
    )
    patch = _cut(rng, image, size, jitter)
    return _paste(rng, image, patch, np.ones(size, bool))


def cutpaste_scar(
    rng: np.random.Generator,
    image: np.ndarray,
    *,
    width: tuple[int, int] = (2, 16),
    length: tuple[int, int] = (10, 25),
    angle: float = 45.0,
    jitter: float = 0.1,
) -> tuple[np.ndarray, np.ndarray]:
    """Pastes a thin, rotated rectangle of the image at another position.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      width, length: ranges of its sides in pixels, inclusive.
      angle: largest rotation, in degrees, in both directions.
      jitter: see `cutpaste`.

    Returns:
      The image with the scar, `[H, W, 3]` float32, and where it is, `[H, W]` uint8 in {0, 1}.
    """
    sides = (min(int(rng.integers(*length, endpoint=True)), image.shape[0]), int(rng.integers(*width, endpoint=True)))
    sides = (sides[0], min(sides[1], image.shape[1]))
    patch = Image.fromarray(np.round(255 * _cut(rng, image, sides, jitter)).astype(np.uint8))
    degrees = rng.uniform(-angle, angle)
    rotated = patch.rotate(degrees, Image.Resampling.BILINEAR, expand=True)
    shape = Image.new("L", patch.size, 255).rotate(degrees, Image.Resampling.NEAREST, expand=True)
    # a rotated scar as long as the image may be larger than it
    rows, columns = (slice(None, side) for side in image.shape[:2])
    return _paste(rng, image, np.asarray(rotated, np.float32)[rows, columns] / 255, np.asarray(shape)[rows, columns] > 0)


def cutpaste_3way(rng: np.random.Generator, image: np.ndarray) -> dict[str, np.ndarray]:
    """One image of each class of the "3-way" task.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].

    Returns:
      {"normal", "cutpaste", "scar"}, the classes 0, 1 and 2: `[H, W, 3]` float32 each.
    """
    return {"normal": image, "cutpaste": cutpaste(rng, image)[0], "scar": cutpaste_scar(rng, image)[0]}


def _cut(rng: np.random.Generator, image: np.ndarray, size: tuple[int, int], jitter: float) -> np.ndarray:
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(image.shape[:2], size, strict=True))
    patch = image[top : top + size[0], left : left + size[1]]
    return colour_jitter(rng, patch, jitter, jitter) if jitter else patch


def _paste(rng: np.random.Generator, image: np.ndarray, patch: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    height, width = shape.shape
    top, left = (int(rng.integers(side - part + 1)) for side, part in zip(image.shape[:2], shape.shape, strict=True))
    pasted, mask = image.copy(), np.zeros(image.shape[:2], np.uint8)
    window = (slice(top, top + height), slice(left, left + width))
    pasted[window] = np.where(shape[..., None], patch, pasted[window])
    mask[window] = shape
    return pasted, mask
