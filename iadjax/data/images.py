"""Images as the pipeline takes them, and their ranges of values."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.data.decode import Pixels, decode
from iadjax.data.opening import MAX_PIXELS
from iadjax.errors import UserError

__all__ = ["SUFFIXES", "check_channels", "check_value_range", "likely_range", "read_image", "to_float", "unit_range"]

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".pgm", ".ppm", ".pnm", ".pbm"}
)  # fmt: skip

# floats that leave [0, 1] by no more are rounding
_ROUNDING = 1e-4


def read_image(
    file: Path, value_range: float | str = "auto", channels: Sequence[int] | str = "auto", max_pixels: int = MAX_PIXELS
) -> np.ndarray:
    """An image file as RGB `[H, W, 3]`: uint8, or float32 in [0, 1] where the file has more than 8 bits.

    Palette images become RGB, the EXIF orientation is applied. A grey image has three equal channels that share their memory.

    Args:
      file: a path, or an object with `read_bytes()` whose text is its name.
      value_range: the value that becomes 1.0 in files of more than 8 bits: "auto" takes it from the type (65535 of 16 bits, 1.0
        of floats), a number is that value; what lies above it becomes 1.0 too, what lies below 0 becomes 0.
      channels: "auto" takes grey or RGB and leaves out alpha; (i, j, k) are the file's channels that become red, green and
        blue, (i,) is one that becomes grey.
      max_pixels: the limit of pixels, 0 = none.

    Raises:
      UserError: the file cannot be read as one image, has more pixels, other channels, values outside [0, 1] that "auto" does
        not understand, or NaN; it is named.
    """
    pixels = decode(file, max_pixels)
    values = _in_unit_range(_chosen(pixels, channels, file), pixels.white, value_range, file)
    return values if values.shape[-1] == 3 else np.broadcast_to(values, (*values.shape[:2], 3))


def _chosen(pixels: Pixels, channels: Sequence[int] | str, file: object) -> np.ndarray:
    """The channels that are asked for, `[H, W, 1 or 3]`."""
    values, number = pixels.values, pixels.values.shape[-1]
    if channels != "auto":
        if max(channels) >= number:
            raise UserError(f"the image {file} has {number} channels, from 0, and data.channels={tuple(channels)}; correct it")
        first = channels[0]
        if tuple(channels) == tuple(range(first, first + len(channels))):
            return values[..., first : first + len(channels)]
        return values[..., list(channels)]
    known = number - pixels.alpha
    if known not in (1, 3):
        raise UserError(
            f"the image {file} has {known} channels, which are neither grey nor RGB; fit with --config.data.channels=(0,1,2), "
            "the ones that shall be red, green and blue, or =(0,), one that shall be grey"
        )
    return values[..., :known]


def _in_unit_range(values: np.ndarray, white: float | None, value_range: float | str, file: object) -> np.ndarray:
    if values.dtype == np.uint8:
        return values
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low) or not np.isfinite(high):
        raise UserError(f"the image {file} holds NaN or infinite values; repair or remove it")
    if value_range == "auto":
        is_float = values.dtype.kind == "f"
        if white is None or (is_float and not -_ROUNDING <= low <= high <= white + _ROUNDING):
            what = "floats must lie in [0, 1]" if is_float else f"{values.dtype} does not say which value is white"
            raise UserError(
                f"the image {file} holds values from {low:g} to {high:g}, and {what}; fit with "
                f"--config.data.value_range={likely_range(high):g}, the value that shall become 1.0"
            )
        value_range = white
    result = np.empty(values.shape, np.float32)
    # one channel at a time: no second copy of the whole
    for channel in range(values.shape[-1]):
        plane = result[..., channel]
        if values.dtype.itemsize > 4 or values.dtype in (np.int32, np.uint32):
            plane[...] = values[..., channel] / np.float64(value_range)
        else:
            plane[...] = values[..., channel]
            plane /= np.float32(value_range)
    return np.clip(result, 0.0, 1.0, out=result)


def likely_range(high: float) -> float:
    """The white that values up to `high` suggest: the full range of 8, 10, 12, 14 or 16 bits above it, or itself."""
    if high <= 0:
        return 1.0
    for bits in (8, 10, 12, 14, 16):
        if 2 ** (bits - 3) < high <= 2**bits - 1:
            return float(2**bits - 1)
    return float(f"{high:.6g}") if float(f"{high:.6g}") >= high else float(f"{high * (1 + 1e-5):.6g}")


def check_value_range(value: Any) -> float | str:
    """`data.value_range`: "auto" or a number above 0, also as text.

    Raises:
      UserError: it is neither.
    """
    if value == "auto":
        return value
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0 < number < float("inf"):
        raise UserError(f"data.value_range must be a number above 0 (the value that becomes 1.0) or 'auto', got {value!r}")
    return number


def check_channels(value: Any) -> tuple[int, ...] | str:
    """`data.channels`: "auto", or one or three indices from 0, also as text like "(0, 1, 2)".

    Raises:
      UserError: it is neither.
    """
    if value == "auto":
        return value
    try:
        found = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        found = None
    found = [found] if type(found) is int else found
    if not isinstance(found, list | tuple) or len(found) not in (1, 3) or not all(type(i) is int and i >= 0 for i in found):
        raise UserError(f"data.channels must be one or three indices from 0, like (0,) or (0, 1, 2), or 'auto', got {value!r}")
    return tuple(found)


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
