"""Reading images, and their ranges of values."""

import io
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from iadjax.errors import UserError

__all__ = ["SUFFIXES", "UNREADABLE", "opened", "read_image", "reason", "to_float", "unit_range"]


SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

_DEEP = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I;16N": 65535.0, "I": 65535.0, "F": 1.0}


def read_image(file: Path) -> np.ndarray:
    """An image file as RGB `[H, W, 3]`: uint8, or float32 in [0, 1] where the file has more than 8 bits.

    Grey and palette images become RGB, alpha is dropped, the EXIF orientation is applied.

    Raises:
      UserError: the file cannot be read as an image; it is named.
    """
    try:
        with Image.open(opened(file)) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode in _DEEP:
                grey = np.clip(np.asarray(image, np.float32) / _DEEP[image.mode], 0.0, 1.0)
                return np.repeat(grey[..., None], 3, axis=-1)
            return np.asarray(image.convert("RGB"))
    except UNREADABLE as error:
        raise UserError(f"cannot read the image {file} ({reason(error)}); repair or remove it") from error


UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read."""


def reason(error: Exception) -> str:
    """Why a file could not be read, for an error message."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error)


def opened(file: Path):
    """What Pillow, NumPy and tifffile open: a path as it is, the bytes of any other file."""
    # paths and texts are left to the reader, which reads no more than it needs
    return file if isinstance(file, str | Path) else io.BytesIO(file.read_bytes())


def to_float(image: np.ndarray) -> np.ndarray:
    """An image as float32 in [0, 1]: uint8 is divided by 255, float32 stays as it is."""
    return image if image.dtype == np.float32 else image.astype(np.float32) / np.float32(255)


_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)


def unit_range(image: jax.Array) -> jax.Array:
    """`to_float` on the device, with the same bits. A uint8 image takes a quarter of the bytes on its way there.

    Args:
      image: uint8, or float32 in [0, 1].

    Returns:
      float32 in [0, 1], of the same shape.
    """
    # a table, because XLA replaces the division by a product, which rounds differently
    return image if image.dtype == jnp.float32 else jnp.asarray(_UNIT)[image.astype(jnp.int32)]
