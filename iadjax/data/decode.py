"""What an image file holds: its stored values, upright, with all of their depth."""

import re
import struct
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageOps

from iadjax.data.opening import (
    MAX_PIXELS,
    ORIENTATION,
    PNG,
    UNREADABLE,
    check_size,
    opened,
    orientation_in,
    picture_in,
    png_chunks,
    reason,
    upright,
)
from iadjax.errors import UserError

__all__ = ["Pixels", "decode"]

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# by the colour type of a PNG: a mode of Pillow, and its names of the high and of the low bytes
_DEEP_PNG = {2: ("RGB", "RGB;16B", "RGB;16L"), 6: ("RGBA", "RGBA;16B", "RGBA;16L"), 4: ("RGBA", "RGBA", "")}
_GAP = rb"(?:\s|#[^\n]*\n)+"
_PNM = re.compile(rb"P([2356])" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)" + _GAP + rb"(\d+)\s")
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


def decode(file: Path, max_pixels: int = MAX_PIXELS, what: str = "image") -> Pixels:
    """The stored values of an image file: a path, or an object with `read_bytes()` whose text is its name.

    Palettes and CMYK become 8-bit RGB. TIFF pages that are thumbnails or masks of another are left aside. `what` it is called
    in an error message.

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
        raise UserError(f"cannot read the {what} {file} ({reason(error)}); repair or remove it") from error


def _decode(stream: BinaryIO, file: object, max_pixels: int) -> Pixels:
    head = stream.read(1024)
    stream.seek(0)
    if head.startswith(PNG) and len(head) > 25 and head[24] == 16 and head[25] in _DEEP_PNG:
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
        if image.getexif().get(ORIENTATION, 1) in range(2, 9):
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
    for name, contents in png_chunks(stream, (b"IHDR", b"IDAT")):
        if name == b"IHDR":
            width, height, _, kind, _, _, interlace = struct.unpack(">IIBBBBB", contents)
            size = (width, height)
            check_size(size, file, max_pixels)
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
    return Pixels(upright(values, orientation_in(stream)), 65535.0, kind != 2)


def _deep_pnm(stream: BinaryIO, header: re.Match, file: object, max_pixels: int) -> Pixels:
    """A binary PGM or PPM of 16 bits, whose header says what stands for white; Pillow would scale it."""
    kind, width, height, white = map(int, header.groups())
    if kind in (2, 3):
        raise UserError(f"the image {file} is written as text with more than 8 bits; save it as a binary PGM or PPM")
    check_size((width, height), file, max_pixels)
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
                check_size(size, file, max_pixels)
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
    tag = page.tags.get(ORIENTATION)
    if values.dtype == bool:
        values = values.astype(np.uint8) * np.uint8(255)
    return upright(values, int(tag.value) if tag is not None else 1)
