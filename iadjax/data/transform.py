"""Images, masks and maps are resized and cropped here and nowhere else."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from iadjax.data.images import read_image, to_float
from iadjax.data.opening import MAX_PIXELS
from iadjax.errors import UserError

__all__ = ["FILTERS", "RESIZE_SIDES", "Geometry", "Transform", "geometry", "resize_map"]

RESIZE_SIDES = ("auto", "both", "shorter")
FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


class Geometry(NamedTuple):
    """Where the network's input lies in an original image.

    Attributes:
      size: (height, width) of the input.
      resized: (height, width) of the whole image before the crop.
      start: (top, left) of the input in the resized image.
      box: (left, top, right, bottom) of the part that is evaluated, in pixels of the original: the input's part, and the whole
        original where the input is cropped to a multiple.
    """

    size: tuple[int, int]
    resized: tuple[int, int]
    start: tuple[int, int]
    box: tuple[float, float, float, float]


def _pair(value) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int | np.integer) else (int(value[0]), int(value[1]))


def geometry(height: int, width: int, resize, crop=0, side: str = "auto", multiple: int = 0) -> Geometry:
    """Sizes for an original of `height` x `width`; the arguments are those of `Transform`.

    Raises:
      UserError: the crop is larger than the resized image, or the arguments exclude each other.
    """
    crop_h, crop_w = _pair(crop)
    if crop_h and multiple:
        raise UserError(f"data.crop={crop} and data.crop_multiple={multiple} exclude each other; set one of them to 0")
    resized = _resized(height, width, resize, "shorter" if side == "auto" and crop_h else side)
    if multiple:
        size, start = (resized[0] // multiple * multiple, resized[1] // multiple * multiple), (0, 0)
        if 0 in size:
            raise UserError(
                f"data.crop_multiple={multiple} leaves nothing of the resized image {resized[0]}x{resized[1]}; "
                "lower it or raise data.resize"
            )
        return Geometry(size, resized, start, (0, 0, width, height))
    size = (crop_h, crop_w) if crop_h else resized
    if size[0] > resized[0] or size[1] > resized[1]:
        raise UserError(
            f"data.crop {size[0]}x{size[1]} is larger than the resized image {resized[0]}x{resized[1]}; "
            "lower data.crop or raise data.resize"
        )
    # rounded to even, as torchvision does
    top, left = (round((whole - part) / 2) for whole, part in zip(resized, size, strict=True))
    scale_h, scale_w = height / resized[0], width / resized[1]
    box = (left * scale_w, top * scale_h, (left + size[1]) * scale_w, (top + size[0]) * scale_h)
    return Geometry(size, resized, (top, left), box)


def _resized(height: int, width: int, resize, side: str) -> tuple[int, int]:
    if not isinstance(resize, int | np.integer):
        if side == "shorter" and resize[0] != resize[1]:
            raise UserError(f"data.resize_side=shorter needs one integer as data.resize, got {tuple(resize)}")
        # a pair is exact
        return _pair(resize) if resize[0] else (height, width)
    if resize == 0:
        return height, width
    if side != "shorter":
        return int(resize), int(resize)
    # the longer side is cut to whole pixels, as torchvision does
    short = min(height, width)
    return int(resize * height / short), int(resize * width / short)


class Transform(NamedTuple):
    """Resize and crop: the only step that resamples pixels on the way in, and maps on the way out.

    Attributes:
      resize: one integer or (height, width), 0 = off. A pair is the exact size.
      crop: likewise, after the resize, centred.
      tile: (height, width) of the parts in which the result goes through the network, see `data.tiling`; None: whole.
      overlap: of neighbouring tiles, as a fraction of one.
      side: what one integer as `resize` is the size of. "both": height and width. "shorter": the shorter side, and the aspect
        is kept, as torchvision's Resize does. "auto": "shorter" with a crop (the published "256 then 224"), else "both".
      interpolation: of images: "bilinear", "bicubic" or "lanczos", all with antialiasing, as Pillow does. Masks are resized by
        nearest neighbour, maps bilinearly.
      multiple: above 0, the resized image is cropped from its top left corner to the largest multiple of this number on each
        side, as DINOv2's patches need; not with `crop`. The map goes on to the edge of the original: its last values are
        repeated there.
      map_sigma: of the Gaussian that smooths a map after it is brought back, in pixels of the original; 0 = off. Some authors
        smooth there instead of at the input's resolution.
      value_range, channels, max_pixels: how `read` reads a file, see `read_image`.
    """

    resize: int | tuple[int, int] = 256
    crop: int | tuple[int, int] = 0
    tile: tuple[int, int] | None = None
    overlap: float = 0.25
    side: str = "auto"
    interpolation: str = "bilinear"
    multiple: int = 0
    map_sigma: float = 0.0
    value_range: float | str = "auto"
    channels: tuple[int, ...] | str = "auto"
    max_pixels: int = MAX_PIXELS

    def read(self, file: Path) -> np.ndarray:
        """An image file as `[H, W, 3]` uint8, or float32 in [0, 1], by the value range and channels of the run."""
        return read_image(file, self.value_range, self.channels, self.max_pixels)

    def geometry(self, height: int, width: int) -> Geometry:
        """Sizes for an original of `height` x `width`."""
        return geometry(height, width, self.resize, self.crop, self.side, self.multiple)

    def image(self, image: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` uint8 or float32 to the network's input, `[h, w, 3]` float32 in [0, 1]."""
        return to_float(self.resample(image))

    def resample(self, image: np.ndarray) -> np.ndarray:
        """As `image`, but uint8 stays uint8."""
        geo = self.geometry(*image.shape[:2])
        if geo.resized != image.shape[:2]:
            size, method = geo.resized[::-1], FILTERS[self.interpolation]
            # the channels of a grey image share their memory
            grey = image.strides[-1] == 0
            if image.dtype == np.uint8 and not grey:
                image = np.asarray(Image.fromarray(image).resize(size, method))
            else:
                # one after the other: a copy of a channel, not of the image
                planes = [np.asarray(Image.fromarray(image[..., c]).resize(size, method)) for c in range(1 if grey else 3)]
                image = np.stack(planes * (3 // len(planes)), axis=-1)
                if image.dtype != np.uint8:
                    # bicubic and Lanczos filters overshoot
                    image = np.clip(image, 0, 1)
        image = _crop(image, geo)
        return np.ascontiguousarray(image) if image.strides[-1] == 0 else image

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """`[H, W]` uint8 to the network's input size; nearest neighbour."""
        geo = self.geometry(*mask.shape)
        if geo.resized != mask.shape:
            mask = np.asarray(Image.fromarray(mask).resize(geo.resized[::-1], Image.Resampling.NEAREST))
        return _crop(mask, geo)

    def points(self, xyz: np.ndarray) -> np.ndarray:
        """`[H, W, 3]` float32 to the network's input size; nearest neighbour, because 0 means that nothing was measured."""
        geo = self.geometry(*xyz.shape[:2])
        if geo.resized != xyz.shape[:2]:
            size = geo.resized[::-1]
            planes = [
                Image.fromarray(np.ascontiguousarray(xyz[..., c])).resize(size, Image.Resampling.NEAREST) for c in range(3)
            ]
            xyz = np.stack([np.asarray(plane) for plane in planes], axis=-1)
        return _crop(xyz, geo)

    def visible(self, array: np.ndarray) -> np.ndarray:
        """The part of an original `[H, W, ...]` that is evaluated, at the original resolution."""
        left, top, right, bottom = _pixels(self.geometry(*array.shape[:2]).box)
        return array[top:bottom, left:right]

    def origin(self, height: int, width: int) -> tuple[int, int]:
        """(left, top) of the visible part in an original of `height` x `width`."""
        return _pixels(self.geometry(height, width).box)[:2]

    def extend(self, anomaly_map: np.ndarray, height: int, width: int) -> np.ndarray:
        """A map of the input `[h, w]` over the visible part: with `multiple`, its last rows and columns are repeated."""
        if not self.multiple:
            return anomaly_map
        geo = self.geometry(height, width)
        rest = [(0, whole - part) for whole, part in zip(geo.resized, geo.size, strict=True)]
        return np.pad(anomaly_map, rest, mode="edge")

    def map_back(self, anomaly_map: np.ndarray, height: int, width: int) -> np.ndarray:
        """A map of the input `[h, w]` to the visible part of an original of `height` x `width`; bilinear, then smoothed."""
        left, top, right, bottom = _pixels(self.geometry(height, width).box)
        whole = resize_map(self.extend(anomaly_map, height, width), (bottom - top, right - left))
        return ndimage.gaussian_filter(whole, self.map_sigma) if self.map_sigma else whole


def resize_map(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bilinear resize of a float32 map `[h, w]` to (height, width); antialiased when it shrinks."""
    if anomaly_map.shape == tuple(size):
        return anomaly_map
    image = Image.fromarray(np.ascontiguousarray(anomaly_map, np.float32))
    return np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR))


def _crop(array: np.ndarray, geo: Geometry) -> np.ndarray:
    top, left = geo.start
    return array[top : top + geo.size[0], left : left + geo.size[1]]


def _pixels(box) -> tuple[int, int, int, int]:
    left, top, right, bottom = (round(value) for value in box)
    return left, top, max(right, left + 1), max(bottom, top + 1)
