"""The one place where images, masks and maps are resized and cropped."""

from typing import NamedTuple

import numpy as np
from PIL import Image

from iadjax.data.images import to_float
from iadjax.errors import UserError

__all__ = ["Geometry", "Transform", "geometry", "resize_map"]


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
