"""Reading images and masks, and the one place where they are resized and cropped."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from iadjax.errors import UserError

__all__ = [
    "SUFFIXES", "Transform", "geometry", "read_coded_mask", "read_image", "read_item", "read_mask", "read_values", "to_float",
    "unit_range",
]  # fmt: skip

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


class Geometry(NamedTuple):
    """Where the network's input lies in an original image.

    Attributes:
      size: (height, width) of the input.
      resized: (height, width) of the whole image before the crop.
      box: (left, top, right, bottom) of the input in pixels of the original.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    box: tuple[float, float, float, float]


def _pair(value) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int | np.integer) else (int(value[0]), int(value[1]))


def geometry(height: int, width: int, resize, crop) -> Geometry:
    """Sizes for an original of `height` x `width`.

    `resize` and `crop` are one integer or (height, width), 0 for none. A pair is the exact size. One integer is the size
    of both sides; with a crop it is the size of the shorter side, as in torchvision (the published "256 then 224").
    """
    resize_h, resize_w = _pair(resize)
    crop_h, crop_w = _pair(crop)
    if resize_h == 0:
        resized = (height, width)
    elif isinstance(resize, int | np.integer) and crop_h:
        short = min(height, width)
        resized = (round(height * resize_h / short), round(width * resize_h / short))
    else:
        resized = (resize_h, resize_w)
    size = (crop_h, crop_w) if crop_h else resized
    if size[0] > resized[0] or size[1] > resized[1]:
        raise UserError(
            f"data.crop {size[0]}x{size[1]} is larger than the resized image {resized[0]}x{resized[1]}; "
            "lower data.crop or raise data.resize"
        )
    top, left = (resized[0] - size[0]) // 2, (resized[1] - size[1]) // 2
    scale_h, scale_w = height / resized[0], width / resized[1]
    box = (left * scale_w, top * scale_h, (left + size[1]) * scale_w, (top + size[0]) * scale_h)
    return Geometry(size, resized, box)


class Transform(NamedTuple):
    """Resize and centre crop: the only place where pixels are resampled on the way in, and mapped back on the way out.

    Attributes:
      resize: one integer or (height, width); 0 = off; see `geometry`.
      crop: likewise, after the resize, centred.
      tile: (height, width) of the parts in which the result goes through the network, see `data.tiling`; None: whole.
      overlap: of neighbouring tiles, as a share of one.
    """

    resize: int | tuple[int, int] = 256
    crop: int | tuple[int, int] = 0
    tile: tuple[int, int] | None = None
    overlap: float = 0.25

    def image(self, image: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` to the network's input, float32 in [0, 1]; bilinear with antialiasing."""
        return to_float(self.resample(image))

    def resample(self, image: np.ndarray) -> np.ndarray:
        """As `image`, but uint8 stays uint8."""
        geo = geometry(*image.shape[:2], self.resize, self.crop)
        if geo.resized != image.shape[:2]:
            size = geo.resized[::-1]
            if image.dtype == np.uint8:
                image = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
            else:
                planes = [Image.fromarray(image[..., c]).resize(size, Image.Resampling.BILINEAR) for c in range(3)]
                image = np.stack([np.asarray(plane) for plane in planes], axis=-1)
        return _centre(image, geo)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """`[H, W]` uint8 to the network's input size; nearest neighbour."""
        geo = geometry(*mask.shape, self.resize, self.crop)
        if geo.resized != mask.shape:
            mask = np.asarray(Image.fromarray(mask).resize(geo.resized[::-1], Image.Resampling.NEAREST))
        return _centre(mask, geo)

    def points(self, xyz: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` float32 to the network's input size; nearest neighbour, because 0 means that nothing was measured."""
        geo = geometry(*xyz.shape[:2], self.resize, self.crop)
        if geo.resized != xyz.shape[:2]:
            size = geo.resized[::-1]
            planes = [
                Image.fromarray(np.ascontiguousarray(xyz[..., c])).resize(size, Image.Resampling.NEAREST) for c in range(3)
            ]
            xyz = np.stack([np.asarray(plane) for plane in planes], axis=-1)
        return _centre(xyz, geo)

    def visible(self, array: np.ndarray) -> np.ndarray:
        """The part of an original `[H, W, ...]` that the network sees, at the original resolution."""
        left, top, right, bottom = _pixels(geometry(*array.shape[:2], self.resize, self.crop).box)
        return array[top:bottom, left:right]

    def origin(self, height: int, width: int) -> tuple[int, int]:
        """(left, top) of the visible part in an original of `height` x `width`."""
        return _pixels(geometry(height, width, self.resize, self.crop).box)[:2]

    def map_back(self, anomaly_map: np.ndarray, height: int, width: int) -> np.ndarray:
        """A map of the input `[h, w]` to the visible part of an original of `height` x `width`; bilinear."""
        left, top, right, bottom = _pixels(geometry(height, width, self.resize, self.crop).box)
        return resize_map(anomaly_map, (bottom - top, right - left))


def resize_map(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize of a float32 map `[h, w]` to (height, width); antialiased when it shrinks."""
    if anomaly_map.shape == tuple(size):
        return anomaly_map
    image = Image.fromarray(np.ascontiguousarray(anomaly_map, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def _centre(array: np.ndarray, geo: Geometry) -> np.ndarray:
    top, left = (geo.resized[0] - geo.size[0]) // 2, (geo.resized[1] - geo.size[1]) // 2
    return array[top : top + geo.size[0], left : left + geo.size[1]]


def _pixels(box) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(value) for value in box)
    return left, top, max(right, left + 1), max(bottom, top + 1)
