"""Images of the same product in another position or light: what few-shot methods make of their few images."""

import numpy as np
from PIL import Image, ImageEnhance
from scipy import ndimage

__all__ = ["colour_jitter", "grey", "varied"]

_GREY = np.array([0.299, 0.587, 0.114], np.float32)


def varied(rng: np.random.Generator, image: np.ndarray, probability: float = 0.3) -> np.ndarray:
    """The image turned or mirrored, then in other colours or blurred, each with some probability (FoundAD, Zhai et al., 2026).

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      probability: of a turn by a quarter in either direction (a half turn where the image is not square) or a mirrored image,
        one of three; and, apart from that, of other colours, a grey or a blurred image, one of three.

    Returns:
      `[H, W, 3]` float32 in [0, 1].
    """
    if rng.random() < probability:
        way = rng.integers(3)
        if way == 2:
            image = np.rot90(image, 2 if image.shape[0] != image.shape[1] else 1 + 2 * rng.integers(2))
        else:
            image = np.flip(image, axis=way)
    if rng.random() < probability:
        way = rng.integers(3)
        if way == 0:
            image = colour_jitter(rng, image, 0.3, 0.05)
        elif way == 1:
            image = grey(image)
        else:
            image = ndimage.gaussian_filter(image, (*[rng.uniform(0.1, 2.0)] * 2, 0), mode="mirror")
    return np.ascontiguousarray(image, np.float32)


def grey(image: np.ndarray) -> np.ndarray:
    """`[H, W, 3]` without colours, in three equal channels."""
    return np.repeat(image @ _GREY[:, None], 3, axis=-1)


def colour_jitter(rng: np.random.Generator, image: np.ndarray, strength: float, hue: float) -> np.ndarray:
    """Brightness, contrast and saturation times U(1 - strength, 1 + strength), the hue turned by U(-hue, hue) of the circle.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      strength, hue: see above.

    Returns:
      `[H, W, 3]` float32 in [0, 1].
    """
    picture = Image.fromarray(np.round(255 * image).astype(np.uint8))
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(rng.uniform(1 - strength, 1 + strength))
    hsv = np.array(picture.convert("HSV"))
    # hue is an angle
    hsv[..., 0] = (hsv[..., 0].astype(int) + round(255 * rng.uniform(-hue, hue))) % 256
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"), np.float32) / 255
