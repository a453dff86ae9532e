"""Reading masks: one rule for every file of every source, said once where it is not plain."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from iadjax import progress
from iadjax.data.decode import decode
from iadjax.data.images import read_image
from iadjax.data.opening import UNREADABLE, opened, orientation_of, picture_in, reason, upright
from iadjax.errors import UserError

__all__ = ["MaskReader", "mask_values", "read_coded_mask", "read_item", "read_mask", "read_values"]

_RULES = {
    "two": "a mask of two values, like {file} (0 and {value:g}), marks where it is not 0",
    "grey": "a mask with grey levels, like {file}, marks where a value is above {threshold:g}, half of its range",
    "number": "a mask, like {file}, marks where a value is above {threshold:g} (data.mask_threshold)",
}


class MaskReader:
    """Reads mask files by one rule; says once on standard error which rule it was, unless a mask holds 0 and white alone.

    Called with a file (a path, or an object with `read_bytes()`), it returns `[H, W]` uint8 in {0, 1}; 1 marks a defect. Of a
    colour image the largest channel counts, without alpha; a palette is read as colours; the EXIF orientation is applied.
    The rule of "auto":

    - a mask of two values, 0 and another one (1, 255 in 8 or 16 bits, ...), marks where it is not 0;
    - a mask with grey levels between marks above half of its type's range: 127 of 255, 32767 of 65535, 0.5 of floats in [0, 1];
    - a mask of several values none of which is above that half is refused: its values are codes or ranks.

    Attributes:
      threshold: "auto", or a number: values above it mark a defect.

    Raises:
      UserError: the threshold is neither, or (when called) the file cannot be read, is not one 2-D image or is refused.
    """

    def __init__(self, threshold: float | str = "auto"):
        if threshold != "auto":
            try:
                threshold = float(threshold)
            except (TypeError, ValueError):
                raise UserError(f"data.mask_threshold must be a number or 'auto', got {threshold!r}") from None
        self.threshold = threshold
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, file: Path) -> np.ndarray:
        array = _plane(file)
        if self.threshold == "auto":
            marked, rule, threshold = _by_its_values(array, file)
        else:
            marked, rule, threshold = array > self.threshold, "number", self.threshold
        self._say(rule, file, array.max(initial=0), threshold)
        return marked.astype(np.uint8)

    def _say(self, rule: str, file: Path, value: float, threshold: float) -> None:
        # several threads read
        with self._lock:
            if rule and rule not in self._said:
                self._said.add(rule)
                progress.say("masks: " + _RULES[rule].format(file=file, value=float(value), threshold=threshold))


def _by_its_values(array: np.ndarray, file: Path) -> tuple[np.ndarray, str, float]:
    """What is marked, the key of the rule in `_RULES` ("" where it goes without saying), and the threshold."""
    marked = array != 0
    top = array.max(initial=0)
    white = 1.0 if array.dtype.kind in "bf" else 65535 if array.dtype == np.int32 else np.iinfo(array.dtype).max
    if not marked.any() or np.array_equal(marked, array == top):
        plain = not marked.any() or array.dtype == bool or (array.dtype.kind in "iu" and top == white)
        return marked, "" if plain else "two", 0.0
    half = 0.5 if array.dtype.kind == "f" else white // 2
    if top <= half or array.min() < 0 or top > white:
        what = "small values" if top <= half else "values"
        raise UserError(
            f"the mask {file} holds several {what} up to {top:g}, so what they mark is not known; write it with 0 and 255 "
            "alone, or set data.mask_threshold (--mask_threshold of evaluate.py): values above it mark a defect"
        )
    return array > half, "grey", half


def mask_values(file: Path) -> int:
    """The number of different values in a mask file; errors as `MaskReader`."""
    return len(np.unique(_plane(file)))


def _plane(file: Path) -> np.ndarray:
    """The values of a mask file, `[H, W]`: bool, integers or floats."""
    if Path(str(file)).suffix.lower() == ".npy":
        array = _array(file)
        while array.ndim > 2 and 1 in array.shape:
            array = array.squeeze(array.shape.index(1))
    else:
        # its image bounds its size
        array = decode(file, 0, "mask").values
        array = array[..., 0] if array.shape[-1] == 1 else array
    array = _without_alpha(array)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise UserError(f"the mask {file} must be one 2-D array, got {array.shape} of {array.dtype}")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise UserError(f"the mask {file} holds NaN or infinite values; write it with 0 and 255 alone")
    return array


def _without_alpha(array: np.ndarray) -> np.ndarray:
    """The largest channel of `[H, W, 2 to 4]` without alpha; other arrays as they are."""
    if array.ndim == 3 and array.shape[-1] in (2, 3, 4):
        return array[..., : 3 if array.shape[-1] > 2 else 1].max(axis=-1)
    return array


def _array(file: Path) -> np.ndarray:
    try:
        return np.load(opened(file), allow_pickle=False)
    except UNREADABLE as error:
        raise UserError(f"cannot read the mask {file} ({reason(error)}); repair or remove it") from error


read_mask = MaskReader()
"""Reads a mask by the rule "auto" of `MaskReader`; says its rule once for each process."""


def read_values(file: Path) -> np.ndarray:
    """The stored values of a mask whose values are codes, `[H, W]`: the indices of a palette, or the largest colour channel.

    Raises:
      UserError: the file cannot be read as an image; it is named.
    """
    try:
        with picture_in(opened(file), file, 0) as image:
            array = np.asarray(image)
    except UNREADABLE as error:
        raise UserError(f"cannot read the mask {file} ({reason(error)}); repair or remove it") from error
    return _without_alpha(array)


def read_coded_mask(file: Path) -> np.ndarray:
    """A mask whose values are codes of defects, as `[H, W]` uint8 in {0, 1}: 1 where the value is not 0."""
    return (read_values(file) != 0).astype(np.uint8)


def read_item(
    item, read: Callable[[Path], np.ndarray] = read_mask, image: Callable[[Path], np.ndarray] = read_image
) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of an item with files; no mask file means that nothing is marked, several are united.

    An image is turned as its EXIF orientation says, and so is a mask that has one. A mask without it is turned with its image
    if it has the size of the stored image and not that of the shown one. If it has both sizes, it is taken as drawn on the
    shown image. Either is said once.

    Args:
      item: the item.
      read: reads a mask file as `[H, W]` uint8 in {0, 1}.
      image: reads an image file as `[H, W, 3]`.

    Returns:
      Image `[H, W, 3]` as `image` gives it, and mask `[H, W]` uint8 in {0, 1}.

    Raises:
      UserError: a file cannot be read, or a mask has another size than its image; they are named.
    """
    pixels = image(item.file)
    mask = np.zeros(pixels.shape[:2], np.uint8)
    files = item.masks or ((item.mask,) if item.mask else ())
    turn = orientation_of(item.file) if files else 1
    for file in files:
        part = read(file)
        if turn > 1 and orientation_of(file) == 1:
            part = _turned(part, mask.shape, turn, item.file, file)
        if part.shape != mask.shape:
            raise UserError(
                f"the mask {file} is {part.shape[1]}x{part.shape[0]} but its image {item.file} is "
                f"{pixels.shape[1]}x{pixels.shape[0]}; a mask needs the size of its image"
            )
        mask |= part
    return pixels, mask


def _turned(part: np.ndarray, shown: tuple[int, int], turn: int, image: object, file: object) -> np.ndarray:
    """A mask without an orientation of its own, for an image whose EXIF orientation is `turn`."""
    stored = shown[::-1] if turn > 4 else shown
    if part.shape == stored != shown:
        progress.say_once(
            "turned", f"masks: {file} has the size of {image} as stored, so it is turned as the image's EXIF says"
        )
        return upright(part, turn)
    if part.shape == shown == stored:
        progress.say_once(
            "not turned",
            f"masks: {image} is turned by its EXIF orientation; {file} has none, fits both ways, and is taken as drawn on the "
            "turned image",
        )
    return part
