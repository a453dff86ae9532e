"""Checks of the inputs of metrics."""

import warnings
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError

__all__ = [
    "all_on_accelerator", "as_binary", "as_flat", "as_pairs", "as_scores", "device_scores", "least_at", "on_accelerator",
    "undefined",
]  # fmt: skip


def on_accelerator(array: Any) -> bool:
    """Whether `array` is a JAX array on an accelerator."""
    return isinstance(array, jax.Array) and all(device.platform != "cpu" for device in array.devices())


def all_on_accelerator(maps: Any) -> bool:
    """Whether an array, or every array of a sequence that has some, lives on an accelerator."""
    return on_accelerator(maps) or (isinstance(maps, Sequence) and len(maps) > 0 and all(map(on_accelerator, maps)))


def as_flat(scores: Any, labels: Any, what: str = "scores", labels_what: str = "labels") -> tuple[Any, Any]:
    """Checked scores and bool labels of one shape, flat: on the accelerator where the scores live on one, else on the host.

    Raises:
      UserError: as `as_scores` and `as_binary`, or the shapes differ. Of scores on an accelerator only the counts of NaN and
        infinities leave it.
    """
    if np.shape(scores) != np.shape(labels):
        raise UserError(f"{what} {np.shape(scores)} and {labels_what} {np.shape(labels)} must have one shape")
    if not on_accelerator(scores):
        return as_scores(scores, what).ravel(), as_binary(labels, labels_what).ravel()
    if on_accelerator(labels):
        top, binary = (each.item() for each in _label_census(labels)) if labels.size else (0, True)
        if not (binary and top in (0, 1, 255)):
            raise UserError(f"{labels_what} must be bool, 0 and 1, or 0 and 255; binarise them first")
        labels = labels != 0
    else:
        labels = jnp.asarray(as_binary(labels, labels_what))
    return device_scores(scores, what).ravel(), labels.ravel()


def device_scores(scores: jax.Array, what: str = "scores") -> jax.Array:
    """`as_scores` for an array on an accelerator, where it stays; narrow floats and integers become float32."""
    if scores.dtype not in (jnp.float32, jnp.float64):
        scores = scores.astype(jnp.float32)
    finite, nan = (int(each) for each in _census(scores))
    _check_finite(finite, nan, scores.size, what)
    return scores


@jax.jit
def _census(scores: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.sum(jnp.isfinite(scores)), jnp.sum(jnp.isnan(scores))


@jax.jit
def _label_census(labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    top = labels.max()
    return top, jnp.all((labels == 0) | (labels == top))


def least_at(threshold: float, dtype: Any) -> np.floating:
    """The least value of a float dtype at or above a threshold, so that no score is compared with a rounded threshold."""
    kind = np.dtype(dtype).type
    with np.errstate(over="ignore"):
        value = kind(threshold)
    return value if not float(value) < threshold else np.nextafter(value, kind(np.inf))


def _check_finite(finite: int, nan: int, total: int, what: str) -> None:
    """Raises a UserError that counts NaN and infinities, if there are any among `total` values."""
    if finite != total:
        raise UserError(
            f"{what} hold {nan} NaN and {total - finite - nan} infinite of {total} values; find out which image they come from"
        )


def as_scores(values: Any, what: str = "scores") -> np.ndarray:
    """Scores as a host array of finite floats. Types that float32 holds exactly become float32; others become float64."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf" and array.dtype.name != "bfloat16":
        raise UserError(f"{what} must be real numbers, got dtype {array.dtype}")
    if array.dtype not in (np.float32, np.float64):
        narrow = array.dtype.name == "bfloat16" or np.can_cast(array.dtype, np.float32, "safe")
        array = array.astype(np.float32 if narrow else np.float64)
    finite = np.isfinite(array)
    if not finite.all():
        _check_finite(int(finite.sum()), int(np.isnan(array).sum()), array.size, what)
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
