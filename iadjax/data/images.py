"""Reading images and masks, and their ranges of values."""

import io
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from iadjax.errors import UserError

__all__ = ["SUFFIXES", "read_coded_mask", "read_image", "read_item", "read_mask", "read_values", "to_float", "unit_range"]


SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

_DEEP = {"I;16": 65535.0, "I;16B": 65535.0, "I;16L": 65535.0, "I;16N": 65535.0, "I": 65535.0, "F": 1.0}


def read_image(file: Path) -> np.ndarray:
    """An image file as RGB `[H, W, 3]`: uint8, or float32 in [0, 1] where the file has more than 8 bits.

    Grey and palette images become RGB, alpha is dropped, the EXIF orientation is applied.

    Raises:
      UserError: the file cannot be read as an image; it is named.
    """
    try:
        with Image.open(_opened(file)) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode in _DEEP:
                grey = np.clip(np.asarray(image, np.float32) / _DEEP[image.mode], 0.0, 1.0)
                return np.repeat(grey[..., None], 3, axis=-1)
            return np.asarray(image.convert("RGB"))
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error


_UNREADABLE = (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError)


def _unreadable(file: Path, error: Exception) -> UserError:
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
    return UserError(f"cannot read the image {file} ({reason}); repair or remove it")


def _opened(file: Path):
    # paths and texts are left to Pillow, which reads no more than it needs
    return file if isinstance(file, str | Path) else io.BytesIO(file.read_bytes())


def read_values(file: Path) -> np.ndarray:
    """The stored values of a mask whose values are codes, `[H, W]`: the indices of a palette, the first channel of colours.

    Raises:
      UserError: the file cannot be read as an image; it is named.
    """
    try:
        with Image.open(_opened(file)) as image:
            array = np.asarray(image)
    except _UNREADABLE as error:
        raise _unreadable(file, error) from error
    return array[..., 0] if array.ndim == 3 else array


def read_coded_mask(file: Path) -> np.ndarray:
    """A mask whose values are codes of defects, as `[H, W]` uint8 in {0, 1}: 1 where the value is not 0."""
    return (read_values(file) != 0).astype(np.uint8)


def read_mask(file: Path) -> np.ndarray:
    """A mask file as `[H, W]` uint8 in {0, 1}: 1 where the file is brighter than half of its range."""
    image = read_image(file)
    return (image.max(axis=-1) > (0.5 if image.dtype == np.float32 else 127)).astype(np.uint8)


def read_item(item, read: Callable[[Path], np.ndarray] = read_mask) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of an item with files; no mask file means that nothing is marked, several are united.

    Args:
      item: the item.
      read: reads a mask file as `[H, W]` uint8 in {0, 1}.

    Raises:
      UserError: a file cannot be read, or a mask has another size than its image; they are named.
    """
    image = read_image(item.file)
    mask = np.zeros(image.shape[:2], np.uint8)
    for file in item.masks or ((item.mask,) if item.mask else ()):
        part = read(file)
        if part.shape != mask.shape:
            raise UserError(
                f"the mask {file} is {part.shape[1]}x{part.shape[0]} but its image {item.file} is "
                f"{image.shape[1]}x{image.shape[0]}; a mask needs the size of its image"
            )
        mask |= part
    return image, mask


def to_float(image: np.ndarray) -> np.ndarray:
    """float32 in [0, 1]."""
    return image if image.dtype == np.float32 else image.astype(np.float32) / np.float32(255)


_UNIT = np.arange(256, dtype=np.float32) / np.float32(255)


def unit_range(image: jax.Array) -> jax.Array:
    """`to_float` on the device, bit for bit: uint8 crosses the bus in a quarter of the bytes."""
    # a table, because XLA turns the division by a constant into a product that rounds otherwise
    return image if image.dtype == jnp.float32 else jnp.asarray(_UNIT)[image.astype(jnp.int32)]
