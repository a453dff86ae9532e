"""Images as users give them, in batches of one size, for runs and for exported detectors."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from iadjax import data
from iadjax.data.images import to_float
from iadjax.detector import Prediction
from iadjax.errors import UserError

__all__ = ["as_pixels", "score_images"]


def score_images(
    images: Sequence,
    transform: Callable,
    batch_size: int,
    score: Callable,
    extra: Mapping[str, Sequence[np.ndarray]] | None = None,
    read: Callable[[Path], np.ndarray] = data.read_image,
) -> Prediction:
    """Scores and maps of images as they are, in batches of one size.

    Args:
      images: files, or arrays as `as_pixels` takes them.
      transform: image -> the network's input `[H, W, 3]`.
      batch_size: images in a batch; the last one is filled with zeros.
      score: `(image [B, H, W, 3], extra {name: [B, ...]}) -> Prediction`.
      extra: further inputs by name, one array for each image.
      read: reads a file, `Transform.read` of the run.

    Raises:
      UserError: no images, or images of different sizes after the transform.
    """
    parts, shape = [], None
    for start in range(0, len(images), batch_size):
        rows = [transform(as_pixels(image, read)) for image in images[start : start + batch_size]]
        shape = shape or rows[0].shape
        if any(row.shape != shape for row in rows):
            raise UserError("the images differ in size after data.resize and data.crop; predict them one at a time")
        if len({row.dtype for row in rows}) > 1:
            # 8-bit images would have values of 0 to 255 beside deeper images in [0, 1]
            rows = [to_float(row) for row in rows]
        further = {name: _filled(values[start : start + batch_size], batch_size) for name, values in (extra or {}).items()}
        prediction = jax.device_get(score(_filled(rows, batch_size), further))
        parts.append(_first(prediction, len(rows)))
    if not parts:
        raise UserError("there are no images to predict")
    return jax.tree.map(lambda *each: np.concatenate(each), *parts)


def _first(prediction: Prediction, number: int) -> Prediction:
    return jax.tree.map(lambda x: x[:number], prediction)


def _filled(rows: Sequence[np.ndarray], batch_size: int) -> np.ndarray:
    return np.stack([*rows, *[np.zeros_like(rows[0])] * (batch_size - len(rows))])


def as_pixels(image: np.ndarray | str | Path, read: Callable[[Path], np.ndarray] = data.read_image) -> np.ndarray:
    """An image file, by `read`, or array as `[H, W, 3]` uint8, or float32 in [0, 1].

    Raises:
      UserError: an array of another shape or type.
    """
    if isinstance(image, str | Path):
        return read(Path(image))
    image = np.asarray(image)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype.kind not in "uf":
        raise UserError(f"an image must be [H, W, 3] uint8 or float in [0, 1], got {image.dtype} of shape {image.shape}")
    return image if image.dtype == np.uint8 else image.astype(np.float32)
