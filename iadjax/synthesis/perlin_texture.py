"""Out-of-distribution textures blended into Perlin-shaped regions (DRAEM, Zavrtanik et al., ICCV 2021, section 3.3)."""

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from iadjax.synthesis.perlin import perlin_noise
from iadjax.synthesis.source import Source

__all__ = ["blended", "combined_anomaly", "distort", "perlin_anomaly", "perlin_mask", "rotate", "rotated_noise"]


def perlin_anomaly(
    rng: np.random.Generator,
    image: np.ndarray,
    source: Source,
    *,
    max_scale: int = 6,
    threshold: float = 0.5,
    beta: tuple[float, float] = (0.0, 0.8),
) -> tuple[np.ndarray, np.ndarray]:
    """A synthetic anomaly: I_a = (1 - M) I + (1 - beta) M A + beta M I (eq. 2).

    M is thresholded Perlin noise with 2^U{0, .., max_scale - 1} cells along each axis, rotated by up to 90 degrees. A is an
    image of the source after three of ten random distortions.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      source: where A comes from.
      max_scale: the exponents of the number of cells are below this.
      threshold: of the noise, whose range is about [-1, 1].
      beta: range of the opacity of the image, from the authors' code; the paper has (0.1, 1).

    Returns:
      The image with the anomaly, `[H, W, 3]` float32, and M, `[H, W]` uint8 in {0, 1}; M may be empty.
    """
    size = image.shape[:2]
    texture = distort(rng, source(rng, size))
    mask = perlin_mask(rng, size, max_scale, threshold)
    return blended(image, texture, mask, rng.uniform(*beta)), mask.astype(np.uint8)


def combined_anomaly(
    rng: np.random.Generator,
    image: np.ndarray,
    source: Source,
    *,
    mean: float = 0.5,
    std: float = 0.1,
    low: float = 0.2,
    high: float = 0.8,
    tries: int = 100,
) -> tuple[np.ndarray, np.ndarray]:
    """An anomaly whose region is one Perlin mask, the union or the intersection of two, a third each.

    The local anomaly synthesis of GLASS (Chen et al., ECCV 2024, section 3.4). As there it is drawn again while it is empty.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      source: of textures, as in `perlin_anomaly`.
      mean, std, low, high: the opacity of the image is drawn from N(mean, std^2) and clipped to [low, high].
      tries: masks that may be empty before one pixel is taken.

    Returns:
      The image with the anomaly, `[H, W, 3]` float32, and its region, `[H, W]` uint8 in {0, 1}, never empty.
    """
    size = image.shape[:2]
    texture = distort(rng, source(rng, size))
    for _ in range(tries):
        first, second = perlin_mask(rng, size), perlin_mask(rng, size)
        mask = (first, first | second, first & second)[rng.integers(3)]
        if mask.any():
            break
    else:
        mask = np.zeros(size, bool)
        mask[tuple(rng.integers(size))] = True
    return blended(image, texture, mask, np.clip(rng.normal(mean, std), low, high)), mask.astype(np.uint8)


def perlin_mask(rng: np.random.Generator, size: tuple[int, int], max_scale: int = 6, threshold: float = 0.5) -> np.ndarray:
    """Thresholded Perlin noise of 2^U{0, .., max_scale - 1} cells along each axis, rotated by up to 90 degrees.

    Args:
      rng: draws everything.
      size: (height, width).
      max_scale, threshold: see `perlin_anomaly`.

    Returns:
      `[height, width]` bool; it may be empty.
    """
    return rotated_noise(rng, size, max_scale) > threshold


def rotated_noise(rng: np.random.Generator, size: tuple[int, int], max_scale: int = 6) -> np.ndarray:
    """The noise of `perlin_mask`, `[height, width]` float32, zero outside of what was rotated."""
    cells = tuple(min(2 ** int(rng.integers(max_scale)), side) for side in size)
    noise = perlin_noise(rng, size, cells)
    return rotate(noise, rng.uniform(-90, 90))


def blended(image: np.ndarray, texture: np.ndarray, mask: np.ndarray, beta: float) -> np.ndarray:
    """beta of the image and 1 - beta of the texture where the mask is true."""
    weight = np.float32(beta)
    return np.where(mask[..., None], (1 - weight) * texture + weight * image, image).astype(np.float32)


def rotate(image: np.ndarray, angle: float, resample: Image.Resampling = Image.Resampling.BILINEAR) -> np.ndarray:
    """`[H, W]` or `[H, W, C]` float32, rotated counter-clockwise by `angle` degrees about its centre; zeros outside."""
    if image.ndim == 2:
        return np.asarray(Image.fromarray(image).rotate(angle, resample))
    return np.stack([rotate(image[..., c], angle, resample) for c in range(image.shape[2])], axis=-1)


def distort(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Applies three of ten distortions of colours and positions; `[H, W, 3]` float32 in [0, 1] in and out."""
    picture = Image.fromarray(np.round(255 * image).astype(np.uint8))
    for number in rng.permutation(len(_DISTORTIONS))[:3]:
        picture = _DISTORTIONS[number](rng, picture)
    return np.asarray(picture, np.float32) / 255


def _array(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture, np.float32)


def _picture(array: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(np.clip(array, 0, 255)).astype(np.uint8))


def _gamma(rng, picture):
    return _picture(255 * (_array(picture) / 255) ** rng.uniform(0.5, 2.0, 3))


def _brightness(rng, picture):
    return _picture(_array(picture) * rng.uniform(0.8, 1.2) + rng.uniform(-30, 30))


def _sharpness(rng, picture):
    return ImageEnhance.Sharpness(picture).enhance(rng.uniform(0.1, 1.9))


def _hue_and_saturation(rng, picture):
    hsv = np.asarray(picture.convert("HSV"), np.int32)
    # 50 of 255 in both; hue is an angle
    hue = (hsv[..., 0] + rng.integers(-50, 51)) % 256
    saturation = np.clip(hsv[..., 1] + rng.integers(-50, 51), 0, 255)
    return Image.fromarray(np.stack([hue, saturation, hsv[..., 2]], -1).astype(np.uint8), "HSV").convert("RGB")


def _solarize(rng, picture):
    return ImageOps.solarize(picture, int(rng.integers(32, 129))) if rng.random() < 0.5 else picture


def _posterize(rng, picture):
    return ImageOps.posterize(picture, int(rng.integers(1, 9)))


def _invert(rng, picture):
    return ImageOps.invert(picture)


def _autocontrast(rng, picture):
    return ImageOps.autocontrast(picture, cutoff=int(rng.integers(0, 21)))


def _equalize(rng, picture):
    return ImageOps.equalize(picture)


def _rotation(rng, picture):
    return picture.rotate(rng.uniform(-45, 45), Image.Resampling.BILINEAR)


_DISTORTIONS = (
    _gamma,
    _brightness,
    _sharpness,
    _hue_and_saturation,
    _solarize,
    _posterize,
    _invert,
    _autocontrast,
    _equalize,
    _rotation,
)
