"""What the metrics accept, and one clear error for everything else."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from iadjax.errors import UserError

__all__ = ["as_binary", "as_pairs", "as_scores", "check_finite", "on_accelerator", "undefined"]


def on_accelerator(array: Any) -> bool:
    """Whether `array` is a JAX array that lives on something else than the CPU."""
    return isinstance(array, jax.Array) and all(device.platform != "cpu" for device in array.devices())


def check_finite(finite: int, nan: int, total: int, what: str) -> None:
    """Raises a UserError that counts NaN and infinities, if there are any among `total` values."""
    if finite != total:
        raise UserError(
            f"{what} hold {nan} NaN and {total - finite - nan} infinite of {total} values; find out which image they come from"
        )


def as_scores(values: Any, what: str = "scores") -> np.ndarray:
    """Host array of finite floats: float32 and float64 as they are, what float32 holds exactly as float32, else float64."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise UserError(f"{what} must be real numbers, got dtype {array.dtype}")
    if array.dtype not in (np.float32, np.float64):
        narrow = array.dtype.name == "bfloat16" or np.can_cast(array.dtype, np.float32, "safe")
        array = array.astype(np.float32 if narrow else np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        check_finite(int(finite.sum()), int(np.isnan(array).sum()), array.size, what)
    return array


def as_binary(values: Any, what: str = "labels") -> np.ndarray:
    """Host array of bool from bool, {0, 1} or {0, 255}."""
    array = np.asarray(values)
    if array.dtype == np.bool_:
        return array
    marked = array != 0
    if array.dtype.kind in "iuf":
        top = array.max(initial=0)
        if top in (0, 1, 255) and np.array_equal(marked, (array == top) & marked):
            return marked
    raise UserError(f"{what} must be bool, 0 and 1, or 0 and 255; binarise them first")


def as_pairs(maps: Any, masks: Any) -> tuple[Any, Any]:
    """Maps and masks of equal shapes: two arrays `[N, H, W]`, or two lists of 2-D arrays; values are not looked at."""
    stacked = hasattr(maps, "ndim") and hasattr(masks, "ndim") and maps.ndim == 3
    if stacked and maps.shape == masks.shape:
        return maps, masks
    if not stacked:
        if not all(isinstance(each, Sequence) or getattr(each, "ndim", 0) == 3 for each in (maps, masks)):
            raise UserError("maps and masks must be arrays [N, H, W] or lists of arrays [H, W]")
        maps, masks = list(maps), list(masks)
        if any(np.ndim(each) != 2 for each in (*maps, *masks)):
            raise UserError("every map and every mask in a list must be an array [H, W]")
    if len(maps) != len(masks):
        raise UserError(f"got {len(maps)} maps but {len(masks)} masks; every map needs one mask")
    for i, (each, mask) in enumerate(zip(maps, masks, strict=True)):
        if np.shape(each) != np.shape(mask):
            raise UserError(f"map {i} is {np.shape(each)} but its mask is {np.shape(mask)}; resize the map to the mask")
    return maps, masks


def undefined(reason: str) -> float:
    """NaN, with one warning that says why."""
    warnings.warn(f"{reason}: the result is NaN", RuntimeWarning, stacklevel=3)
    return float("nan")
