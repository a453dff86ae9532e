"""Images as users give them, checked, and in batches of few sizes, for runs and for exported detectors."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageOps

from iadjax import data
from iadjax.data.images import to_float
from iadjax.detector import Prediction
from iadjax.errors import UserError

__all__ = ["as_images", "as_pixels", "check_batch", "score_images"]

# a float16 rounds 1 that much away from it
_ROUNDING = 1e-3
_SHAPES = "[H, W, 3], [H, W, 4] with alpha, or grey [H, W] or [H, W, 1]"


def as_images(images: Any) -> Iterator[Any]:
    """The single images of whatever holds them, as they are: `as_pixels` reads and checks each.

    Args:
      images: one image (a path, a Pillow image, an array `[H, W, 3]`, `[H, W, 4]`, `[H, W, 1]` or `[H, W]`), an array of
        several `[B, H, W, C]`, or any iterable of images.

    Raises:
      UserError: none of these.
    """
    if isinstance(images, str | Path | Image.Image):
        return iter([images])
    if hasattr(images, "__array__"):
        array = np.asarray(images)
        if array.ndim == 4:
            return iter(array)
        if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in (1, 3, 4)):
            return iter([array])
        raise UserError(
            f"an array of shape {array.shape} is neither one image ({_SHAPES}) nor several [B, H, W, C]; "
            "channels come last, and several grey images are [B, H, W, 1]"
        )
    if isinstance(images, bytes | Mapping) or not isinstance(images, Iterable):
        raise UserError(f"images must be a path, an array, a Pillow image, or several of them, got {type(images).__name__}")
    return iter(images)


def as_pixels(image: Any, name: str = "an image", read: Callable[[Path], np.ndarray] = data.read_image) -> np.ndarray:
    """One image as `[H, W, 3]`: uint8, or float32 in [0, 1].

    A file is read by `read`. Arrays (NumPy, JAX, anything with `__array__`) and Pillow images by this rule:

    - uint8 stays as it is, and stands for 0 to 255;
    - uint16 is divided by 65535;
    - floats must be finite and in [0, 1]; what rounding left outside is clipped;
    - bool and other integers are refused, because their range is not known;
    - the three channels of a grey image share their memory; alpha is dropped;
    - of Pillow images palettes become colours, and the EXIF orientation is applied.

    Args:
      image: a path, an array of the shape `[H, W, 3]`, `[H, W, 4]`, `[H, W, 1]` or `[H, W]`, or a Pillow image.
      name: of the image, for messages.
      read: reads a file.

    Raises:
      UserError: a file that cannot be read, or another shape, type or range; it says how to mend it.
    """
    if isinstance(image, str | Path):
        return read(Path(image).expanduser())
    if isinstance(image, Image.Image):
        image = ImageOps.exif_transpose(image)
        # deep modes keep their depth; the others hold 8 bits
        image = np.asarray(image if image.mode[0] in "IF" else image.convert("RGB"))
    elif not hasattr(image, "__array__"):
        raise UserError(f"{name} must be a path, an array or a Pillow image, got {type(image).__name__}")
    array = np.asarray(image)
    array = array[..., None] if array.ndim == 2 else array
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        fix = "; move its channels to the end: image.transpose(1, 2, 0)" if first else ""
        raise UserError(f"{name} must be {_SHAPES}, got the shape {np.shape(image)}{fix}")
    values = _unit(array[..., :3], name)
    return values if values.shape[-1] == 3 else np.broadcast_to(values, (*values.shape[:2], 3))


def _unit(array: np.ndarray, name: str) -> np.ndarray:
    """Type and range by the rule of `as_pixels`."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return array.astype(np.float32) / np.float32(65535)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(
            f"{name} holds {array.dtype}, whose range is not known; give uint8 (0 to 255, like image.astype(np.uint8)), "
            "uint16 (0 to 65535) or floats in [0, 1]"
        )
    # both are NaN where any value is, and no second array is made
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise UserError(f"{name} holds NaN or infinite values; repair it, or leave it out")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise UserError(
            f"{name} holds floats from {low:.4g} to {high:.4g}, which must be in [0, 1]; divide by the largest possible value, "
            "like image / 255, or give uint8"
        )
    array = array.astype(np.float32)
    return np.clip(array, 0, 1) if low < 0 or high > 1 else array


def check_batch(image: Any) -> None:
    """Raises a UserError unless `image` is what `predict_batch` takes; its values are not looked at."""
    if np.ndim(image) != 4 or image.shape[-1] != 3 or image.dtype not in (np.uint8, np.float32):
        kind = f"{image.dtype} of shape {image.shape}" if hasattr(image, "dtype") else type(image).__name__
        raise UserError(
            f"predict_batch takes resized and cropped images [B, h, w, 3], uint8 or float32 in [0, 1], got {kind}; predict "
            "takes images as they are"
        )


def score_images(
    images: Iterable,
    transform: Callable,
    sizes: Sequence[int],
    score: Callable,
    extra: Mapping[str, Iterable[np.ndarray]] | None = None,
) -> Prediction:
    """Scores and maps of images in batches of given sizes, so that few shapes are compiled.

    Args:
      images: `[H, W, 3]` uint8, or float32 in [0, 1]; read as they are needed.
      transform: image -> the network's input `[h, w, 3]`.
      sizes: the sizes of batches that `score` is called with, ascending. All batches but the last have the largest; what is
        left is scored in the smallest size where it is at most a quarter of the largest, else filled with zeros.
      score: `(image [B, h, w, 3], extra {name: [B, ...]}) -> Prediction`.
      extra: further inputs by name, one array for each image.

    Raises:
      UserError: no images, images of different sizes after the transform, another number of inputs than of images, or a score
        or map that is not finite.
    """
    images, further = iter(images), {name: iter(values) for name, values in (extra or {}).items()}
    parts, shape, done = [], None, 0
    while rows := [transform(image) for image in itertools.islice(images, sizes[-1])]:
        inputs = {name: list(itertools.islice(values, len(rows))) for name, values in further.items()}
        for name, values in inputs.items():
            if len(values) < len(rows):
                raise UserError(f"extra[{name!r}] holds {done + len(values)} arrays, fewer than there are images")
        shape = shape or rows[0].shape
        if any(row.shape != shape for row in rows):
            raise UserError("the images differ in size after data.resize and data.crop; predict them one at a time")
        if len({row.dtype for row in rows}) > 1:
            # 8-bit images would have values of 0 to 255 beside deeper images in [0, 1]
            rows = [to_float(row) for row in rows]
        step = sizes[0] if 4 * len(rows) <= sizes[-1] else sizes[-1]
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            batch = score(_filled(rows[some], step), {name: _filled(values[some], step) for name, values in inputs.items()})
            parts.append(_finite(_first(jax.device_get(batch), len(rows[some])), done + start))
        done += len(rows)
    if not parts:
        raise UserError("there are no images to predict")
    if any(next(values, None) is not None for values in further.values()):
        raise UserError(f"extra holds more arrays than the {done} images")
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


def _finite(prediction: Prediction, first: int) -> Prediction:
    for row, score in enumerate(prediction.score):
        if not np.isfinite(score) or (prediction.map is not None and not np.isfinite(prediction.map[row]).all()):
            raise UserError(
                f"the score or the map of image {first + row} is not finite; the detector has diverged: fit it again"
            )
    return prediction


def _first(prediction: Prediction, number: int) -> Prediction:
    return jax.tree.map(lambda x: x[:number], prediction)


def _filled(rows: Sequence[np.ndarray], size: int) -> np.ndarray:
    return np.stack([*rows, *[np.zeros_like(rows[0])] * (size - len(rows))])
