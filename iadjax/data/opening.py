"""Opening image files: what readers raise, how many pixels are too many, and how an image is turned."""

import contextlib
import io
import logging
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import tifffile
from PIL import Image, UnidentifiedImageError

from iadjax.errors import UserError

__all__ = [
    "MAX_PIXELS", "ORIENTATION", "PNG", "UNREADABLE", "check_size", "opened", "orientation_in", "orientation_of", "picture_in",
    "png_chunks", "reason", "upright",
]  # fmt: skip

MAX_PIXELS = 500_000_000
"""The default of `data.max_pixels`: 1.5 GB as 8-bit RGB."""

UNREADABLE = (
    UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, tifffile.TiffFileError,
    IndexError, KeyError, TypeError, AttributeError, OverflowError, ZeroDivisionError, Image.DecompressionBombError,
)  # fmt: skip
"""What the decoders raise for a damaged file."""

ORIENTATION = 0x0112
"""The tag of the orientation, in EXIF and TIFF."""

PNG = b"\x89PNG\r\n\x1a\n"
"""How a PNG begins."""

_LOCK = threading.Lock()
# what it logs of a damaged file is said by our own error
logging.getLogger("tifffile").setLevel(logging.CRITICAL)


def opened(file: Path):
    """What Pillow, NumPy and tifffile open: a path as it is, the bytes of any other file."""
    # paths and texts are left to the reader, which reads no more than it needs
    return file if isinstance(file, str | Path) else io.BytesIO(file.read_bytes())


def reason(error: Exception) -> str:
    """Why a file could not be read, for an error message."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split()) or type(error).__name__


@contextlib.contextmanager
def picture_in(source: str | Path | BinaryIO, file: object, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """Opens an image with Pillow under our limit of pixels instead of Pillow's, which belongs to the whole process.

    Args:
      source: what Pillow opens.
      file: its name, for the error message.
      max_pixels: the limit, 0 = none.

    Raises:
      UserError: the image has more pixels.
    """
    with _LOCK:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            image = Image.open(source)
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    with image:
        check_size(image.size, file, max_pixels)
        yield image


def check_size(size: tuple[int, int], file: object, max_pixels: int) -> None:
    width, height = size
    if max_pixels and width * height > max_pixels:
        raise UserError(
            f"the image {file} is {width}x{height}, {width * height / 1e6:.0f} million pixels, and data.max_pixels is "
            f"{max_pixels / 1e6:g} million; set data.max_pixels={width * height} or more (0: no limit) if it is meant"
        )


def png_chunks(stream: BinaryIO, wanted: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(name, contents) of the chunks of a PNG, from its first; of those that are not wanted the first bytes alone."""
    stream.seek(len(PNG))
    while len(start := stream.read(8)) == 8:
        length, name = struct.unpack(">I4s", start)
        contents = stream.read(length if name in wanted else min(length, 32))
        # and its checksum
        stream.seek(length - len(contents) + 4, io.SEEK_CUR)
        yield name, contents
        if name == b"IEND":
            return


def orientation_of(file: Path) -> int:
    """The EXIF orientation that a file declares, 1 to 8; 1 where there is none, and for what Pillow does not open."""
    try:
        source = opened(file)
        with open(source, "rb") if isinstance(source, str | Path) else source as stream:
            return orientation_in(stream)
    except UNREADABLE:
        return 1


def orientation_in(stream: BinaryIO) -> int:
    stream.seek(0)
    # Pillow decodes the whole of a PNG to find that there is none
    if stream.read(len(PNG)) == PNG and not any(
        name == b"eXIf" or contents.startswith((b"Raw profile type exif", b"XML:com.adobe.xmp"))
        for name, contents in png_chunks(stream, ())
    ):
        return 1
    stream.seek(0)
    with picture_in(stream, "", 0) as image:
        found = image.getexif().get(ORIENTATION, 1)
    return found if found in range(2, 9) else 1


def upright(values: np.ndarray, orientation: int) -> np.ndarray:
    """An array `[H, W, ...]` as the EXIF orientation (1 to 8) says to show it."""
    if orientation in (5, 6, 7, 8):
        values = values.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values
