"""What an image file holds: its stored values, upright, with all of their depth."""

import contextlib
import io
import re
import struct
import threading
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError

from iadjax.errors import UserError

__all__ = ["MAX_PIXELS", "UNREADABLE", "Pixels", "decode", "opened", "orientation_of", "picture_in", "reason", "upright"]

MAX_PIXELS = 500_000_000
"""The default of `data.max_pixels`: 1.5 GB as 8-bit RGB."""

UNREADABLE = (
    UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, tifffile.TiffFileError,
    IndexError, KeyError, TypeError, AttributeError, OverflowError, ZeroDivisionError, Image.DecompressionBombError,
)  # fmt: skip
"""What the decoders raise for a damaged file."""

_ORIENTATION = 0x0112
_PNG, _TIFF = b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# channels of a PNG by its colour type, and Pillow's names of its high and its low bytes
_DEEP_PNG = {2: ("RGB", "RGB;16B", "RGB;16L"), 6: ("RGBA", "RGBA;16B", "RGBA;16L"), 4: ("RGBA", "RGBA", "")}
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P([2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
_LOCK = threading.Lock()
_STRIP = 2**20


class Pixels(NamedTuple):
    """The values of a file.

    Attributes:
      values: `[H, W, C]`, as stored: integers or floats of any size; turned as the file's orientation says.
      white: what stands for white by the type of the values (255, 65535, 4095 of 12 bits, 1.0 of floats); None where the type
        does not say.
      alpha: whether the last channel is alpha.
    """

    values: np.ndarray
    white: float | None
    alpha: bool


def opened(file: Path):
    """What Pillow, NumPy and tifffile open: a path as it is, the bytes of any other file."""
    # paths and texts are left to the reader, which reads no more than it needs
    return file if isinstance(file, str | Path) else io.BytesIO(file.read_bytes())


def reason(error: Exception) -> str:
    """Why a file could not be read, for an error message."""
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__


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
        _check_size(image.size, file, max_pixels)
        yield image


def _check_size(size: tuple[int, int], file: object, max_pixels: int) -> None:
    width, height = size
    if max_pixels and width * height > max_pixels:
        raise UserError(
            f"the image {file} is {width}x{height}, {width * height / 1e6:.0f} million pixels, and data.max_pixels is "
            f"{max_pixels / 1e6:g} million; set data.max_pixels={width * height} or more (0: no limit) if it is meant"
        )


def decode(file: Path, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The stored values of an image file: a path, or an object with `read_bytes()` whose text is its name.

    Palettes and CMYK become 8-bit RGB. TIFF pages that are thumbnails or masks of another are left aside.

    Raises:
      UserError: the file cannot be read as one image, or is larger than `max_pixels`; it is named.
    """
    try:
        source = opened(file)
        with open(source, "rb") if isinstance(source, str | Path) else source as stream:
            found = _decode(stream, file, max_pixels)
        if 0 in found.values.shape:
            raise ValueError("it has no pixels")
        return found
    except UserError:
        raise
    except UNREADABLE as error:
        raise UserError(f"cannot read the image {file} ({reason(error)}); repair or remove it") from error


def _decode(stream: BinaryIO, file: object, max_pixels: int) -> Pixels:
    head = stream.read(1024)
    stream.seek(0)
    if head.startswith(_PNG) and len(head) > 25 and head[24] == 16 and head[25] in _DEEP_PNG:
        return _deep_png(stream, file, max_pixels)
    if head[:4] in _TIFF:
        return _tiff(stream, file, max_pixels)
    header = _PNM.match(head)
    if header and int(header[4]) > 255:
        return _deep_pnm(stream, header, file, max_pixels)
    return _by_pillow(stream, file, max_pixels)


def _by_pillow(stream: BinaryIO, file: object, max_pixels: int) -> Pixels:
    with picture_in(stream, file, max_pixels) as image:
        # MPO is a photograph with previews; the first is the photograph
        if getattr(image, "n_frames", 1) > 1 and image.format not in ("MPO", "TIFF"):
            raise UserError(f"the image {file} is an animation of {image.n_frames} frames; save the one that is meant")
        image.load()
        if image.getexif().get(_ORIENTATION, 1) in range(2, 9):
            image = ImageOps.exif_transpose(image)
        if image.mode == "1":
            image = image.convert("L")
        elif image.mode == "P" and "transparency" in image.info:
            # one step to RGB warns
            image = image.convert("RGBA").convert("RGB")
        elif image.mode not in ("L", "LA", "RGB", "RGBA", "I", "F") and not image.mode.startswith("I;16"):
            image = image.convert("RGB")
        values = _values(image)
    white = {"u1": 255.0, "u2": 65535.0, "f4": 1.0}.get(values.dtype.str[1:])
    return Pixels(values, white, image.mode in ("LA", "RGBA"))


def _values(image: Image.Image) -> np.ndarray:
    """`[H, W, C]` in the machine's byte order. In strips, because the whole at once needs its bytes twice more."""
    rows = max(1, _STRIP // image.width)
    whole = None
    for top in range(0, image.height, rows):
        strip = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        strip = strip.reshape(*strip.shape[:2], -1)
        if whole is None:
            whole = np.empty((image.height, *strip.shape[1:]), strip.dtype.newbyteorder("="))
        whole[top : top + rows] = strip
    return whole


def _deep_png(stream: BinaryIO, file: object, max_pixels: int) -> Pixels:
    """A PNG of 16 bits and several channels: Pillow opens its upper 8 bits alone, but its decoder also gives the lower ones."""
    parts, size, kind, interlace = [], (0, 0), 2, 0
    for name, contents in _chunks(stream, (b"IHDR", b"IDAT")):
        if name == b"IHDR":
            width, height, _, kind, _, _, interlace = struct.unpack(">IIBBBBB", contents)
            size = (width, height)
            _check_size(size, file, max_pixels)
        elif name == b"acTL":
            raise UserError(f"the image {file} is an animation; save the one picture that is meant")
        elif name == b"IDAT":
            parts.append(contents)
    if 0 in size:
        raise ValueError("it has no pixels")
    data = b"".join(parts)
    del parts
    mode, high, low = _DEEP_PNG[kind]
    if kind == 4:
        # grey and alpha have the four bytes of an RGBA pixel
        bytes_of = _values(Image.frombytes(mode, size, data, "zip", high, interlace))
        values = bytes_of[..., 0::2].astype(np.uint16) << 8 | bytes_of[..., 1::2]
    else:
        values = _values(Image.frombytes(mode, size, data, "zip", high, interlace)).astype(np.uint16)
        values <<= 8
        values |= _values(Image.frombytes(mode, size, data, "zip", low, interlace))
    return Pixels(upright(values, _orientation(stream)), 65535.0, kind != 2)


def _deep_pnm(stream: BinaryIO, header: re.Match, file: object, max_pixels: int) -> Pixels:
    """A binary PGM or PPM of 16 bits, whose header says what stands for white; Pillow would scale it."""
    kind, width, height, white = map(int, header.groups())
    if kind in (2, 3):
        raise UserError(f"the image {file} is written as text with more than 8 bits; save it as a binary PGM or PPM")
    _check_size((width, height), file, max_pixels)
    shape = (height, width, 3 if kind == 6 else 1)
    stream.seek(header.end())
    values = np.frombuffer(stream.read(2 * height * width * shape[2]), ">u2")
    return Pixels(values.reshape(shape).astype(np.uint16), float(white), False)


def _tiff(stream: BinaryIO, file: object, max_pixels: int) -> Pixels:
    try:
        with tifffile.TiffFile(stream) as tiff:
            pages = [page for page in tiff.pages if not (page.is_reduced or page.is_mask)] or [tiff.pages[0]]
            page, first = pages[0], pages[0] is tiff.pages[0]
            bits, kind = page.bitspersample, page.sampleformat
            size, samples, extra = (page.imagewidth, page.imagelength), page.samplesperpixel, tuple(map(int, page.extrasamples))
            inverted = int(page.photometric) == 0
            if len(pages) > 1:
                raise UserError(f"the image {file} holds {len(pages)} pages; save the page that is meant as a file of its own")
            alpha = len(extra) == 1 and extra[0] in (1, 2)
            plain = first and bits <= 8 and int(kind) in (1, 4) and (not extra or alpha) and samples <= 4
            grey = first and samples == 1 and (int(kind) == 1 and 8 < bits <= 16 or int(kind) == 3 and bits == 32)
            if not plain and not grey:
                _check_size(size, file, max_pixels)
                values = _planes(page, file)
    except tifffile.TiffFileError:
        # Pillow has the last word
        plain, grey, inverted = True, False, False
    if plain or grey:
        stream.seek(0)
        found = _by_pillow(stream, file, max_pixels)
        if found.values.dtype != np.uint16:
            return found
        values, alpha = found.values, False
    white = {"u": 255.0 if bits <= 8 else 2.0**bits - 1 if bits <= 16 else None, "f": 1.0}.get(values.dtype.kind)
    if inverted and white and values.dtype.kind == "u":
        values = (int(white) - values).astype(values.dtype)
    return Pixels(values, white, alpha)


def _planes(page: tifffile.TiffPage, file: object) -> np.ndarray:
    """`[H, W, C]` of a page that Pillow does not know."""
    try:
        values = page.asarray()
    except ValueError as error:
        if "imagecodecs" not in str(error):
            raise
        raise UserError(
            f"the image {file} is compressed with {page.compression.name}, which is not read with these channels and bits; "
            "save it without compression, or with deflate"
        ) from error
    if page.axes not in ("YX", "YXS", "SYX") or int(page.photometric) not in (0, 1, 2):
        raise UserError(
            f"the image {file} has the axes {page.axes} and the colours {page.photometric.name}, which are not read; "
            "save it as grey or RGB"
        )
    values = np.moveaxis(values, 0, -1) if page.axes == "SYX" else values.reshape(*values.shape[:2], -1)
    tag = page.tags.get(_ORIENTATION)
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    return upright(values, int(tag.value) if tag is not None else 1)


def _chunks(stream: BinaryIO, wanted: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """(name, contents) of the chunks of a PNG; of those that are not wanted the first bytes alone."""
    stream.seek(len(_PNG))
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
            return _orientation(stream)
    except UNREADABLE:
        return 1


def _orientation(stream: BinaryIO) -> int:
    stream.seek(0)
    # Pillow decodes the whole of a PNG to find that there is none
    if stream.read(len(_PNG)) == _PNG and not any(
        name == b"eXIf" or contents.startswith((b"Raw profile type exif", b"XML:com.adobe.xmp"))
        for name, contents in _chunks(stream, ())
    ):
        return 1
    stream.seek(0)
    with picture_in(stream, "", 0) as image:
        found = image.getexif().get(_ORIENTATION, 1)
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
