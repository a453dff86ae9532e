"""Streams of maps and masks: AUROC, average precision, F1-max, IoU-max, AU-PRO, AUPIMO, and the figures at a threshold."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from iadjax.metrics.components import region_areas
from iadjax.metrics.inputs import all_on_accelerator, as_binary, as_pairs, undefined
from iadjax.metrics.overlap import check_limits, log_ramp_area, namespace, ramp_area
from iadjax.metrics.pimo import check_bounds, warn_unresolved
from iadjax.metrics.pixel import LIMITS
from iadjax.metrics.streaming import bounds
from iadjax.metrics.streaming.bounds import Bounded
from iadjax.metrics.streaming.state import State, count_device, count_host, empty, own, place, settle

__all__ = [
    "AtThreshold", "Streamed", "accumulate", "aupimo", "aupro", "component_areas", "compute", "dice", "init", "iou_max",
    "precision_recall_f1", "update",
]  # fmt: skip


class Streamed(NamedTuple):
    """Results of a stream.

    Attributes:
      metrics: the keys of `pixel_metrics`; the values treat the scores of one bin as tied.
      error_bounds: the same keys: the exact metric of the float32 scores is at most this far away.
    """

    metrics: dict[str, float]
    error_bounds: dict[str, float]


class AtThreshold(NamedTuple):
    """`metrics.precision_recall_f1` of a stream, each with its bound."""

    precision: Bounded
    recall: Bounded
    f1: Bounded


def init(pilot: Any = None, num_bins: int = 1 << 20) -> State:
    """An empty state on the host.

    Args:
      pilot: scores like those to come, of any shape, such as the maps of a few images. Half of the bins lie where it has
        scores; the others cover all float32 values evenly. None: the first batch of `update` is the pilot. `accumulate` has
        no pilot then. It counts in 16 bins for each 1/128 of a power of two, which is coarse for scores in a narrow range.
      num_bins: a power of two, at least 2^17. A state takes 40 bytes for each bin on a device, 80 on the host.

    Raises:
      UserError: num_bins is another number, or `pilot` holds NaN or infinities (counted).
    """
    totals = ("regions", "normal_images", "anomalous_images", "normal_pixels")
    return empty(("normal", "defect"), ("region", "normal_image", "recall"), totals, pilot, num_bins)


def update(state: State, maps: Any, masks: Any, valid: Any = None) -> State:
    """The state after a batch. Components are labelled on the host. Bins move if that makes bounds smaller.

    Args:
      state: from `init`, `update` or `merge`; not changed.
      maps: `[N, H, W]`, or a list of `[H, W]` arrays; float64 is rounded to float32. Maps on an accelerator are counted there.
      masks: as `maps`; bool, {0, 1} or {0, 255}.
      valid: `[N]` bool; False leaves an image out, such as padding of the last batch. None: all count.

    Raises:
      UserError: shapes differ or masks are not binary. NaN and infinities are counted; `compute` raises for them.
    """
    maps, masks = as_pairs(maps, masks)
    chosen = [i for i in range(len(maps)) if valid is None or valid[i]]
    state = place(state, [maps[i] for i in chosen])
    on_device = all_on_accelerator(maps)
    if not on_device:
        state = own(state)
    for i in chosen:
        areas, regions = component_areas(as_binary(masks[i], "masks"))
        if on_device:
            state = _jitted(state, maps[i], areas, regions)
        else:
            count_host(state, np.ravel(maps[i]), *_weights(areas.reshape(1, -1), regions))
    return settle(state)


def component_areas(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """The area of the 8-connected component of each marked pixel, 0 elsewhere, and the number of components.

    Args:
      mask: `[H, W]` bool.

    Returns:
      `[H, W]` int32, and an integer.
    """
    areas = np.zeros(mask.shape, np.int32)
    areas[mask], regions = region_areas(mask)
    return areas, regions


def accumulate(state: State, maps: jax.Array, areas: jax.Array, regions: Any) -> State:
    """`update` as a pure function, for use inside `jax.jit` and `jax.shard_map`; bins do not move.

    Args:
      state: a state of JAX arrays.
      maps: `[N, H, W]` or `[H, W]` float.
      areas: the shape of `maps`, int32: area of the component of a defect pixel, 0 for a normal one, -1 for one to leave out.
      regions: number of components in this batch.
    """
    images = areas.shape[0] if areas.ndim == 3 else 1
    return count_device(state, maps.ravel(), *_weights(areas.reshape(images, -1), regions))


_jitted = jax.jit(accumulate)


def _weights(areas: Any, regions: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights of the pixels of `[N, n]` areas, flat, and what the images add to the totals."""
    xp = namespace(areas)
    marked, used = areas > 0, areas >= 0
    found, size = marked.sum(axis=1, keepdims=True), used.sum(axis=1, keepdims=True)
    normal = (found == 0) & (size > 0)
    weights = {
        "normal": used & ~marked,
        "defect": marked,
        "region": marked / xp.maximum(areas, 1),
        "normal_image": (used & normal) / xp.maximum(size, 1),
        "recall": marked / xp.maximum(found, 1),
    }
    totals = {
        "regions": regions,
        "normal_images": normal.sum(),
        "anomalous_images": (found > 0).sum(),
        "normal_pixels": (size * normal).sum(),
    }
    return {name: each.ravel() for name, each in weights.items()}, totals


def compute(state: State) -> Streamed:
    """Metrics of everything that a streaming state has seen, with their error bounds.

    The order of scores in one bin, or in a bin before it was cut, is not known. A bound is how far the best and the worst order
    are from the value, plus the rounding of float sums. Scores in a bin of one float32 value are tied and add no error.

    Returns:
      `Streamed`; all NaN, with one warning, without a defect or without a defect-free pixel.

    Raises:
      UserError: NaN or infinite scores were seen; they are counted.
    """
    state = bounds.check(state)
    keys = ("pixel_auroc", "pixel_ap", "pixel_f1max", *LIMITS)
    if not _both(state):
        nan = undefined("pixel metrics need a defect and defect-free pixels")
        return Streamed(dict.fromkeys(keys, nan), dict.fromkeys(keys, nan))
    numbers = _curve(state, "normal", "defect")
    rates = _curve(state, "normal", "defect", fractions=True)
    pro = _curve(state, "normal", "region", fractions=True)
    found = [
        bounds.area(rates, partial(ramp_area, limit=1.0)),
        bounds.average_precision(numbers),
        bounds.largest(numbers, lambda true, false: 2 * true / (true + false + numbers.y_at.high[-1])),
        *(bounds.area(pro, partial(ramp_area, limit=limit)) for limit in LIMITS.values()),
    ]
    return Streamed(*(dict(zip(keys, column, strict=True)) for column in zip(*found, strict=True)))


def aupro(state: State, fpr_limit: float = 0.3) -> Bounded:
    """`metrics.aupro` of a stream, to one limit; NaN and errors as `compute`."""
    check_limits(fpr_limit)
    state = bounds.check(state)
    if not _both(state):
        return _undefined("AU-PRO needs a defect and defect-free pixels")
    return bounds.area(_curve(state, "normal", "region", fractions=True), partial(ramp_area, limit=fpr_limit))


def iou_max(state: State) -> Bounded:
    """`metrics.iou_max` of a stream; NaN and errors as `compute`."""
    state = bounds.check(state)
    if not _both(state):
        return _undefined("IoU-max needs a defect and defect-free pixels")
    found = _curve(state, "normal", "defect")
    return bounds.largest(found, lambda true, false: true / (false + found.y_at.high[-1]))


def precision_recall_f1(state: State, threshold: float) -> AtThreshold:
    """`metrics.precision_recall_f1` of the pixels of a stream; NaN and errors as `compute`.

    A threshold at the edge of a bin, as most round numbers are, has no error; else that of the bin that holds it.
    """
    state = bounds.check(state)
    if not _both(state):
        return AtThreshold(*[_undefined("precision, recall and F1 need both classes")] * 3)
    true, false, positives = _flagged(state, threshold)
    return AtThreshold(
        _between(lambda t, f: t / (t + f) if t + f else 0.0, true, false),
        _between(lambda t, f: t / positives, true, false),
        _between(lambda t, f: 2 * t / (t + f + positives), true, false),
    )


def dice(state: State, threshold: float) -> Bounded:
    """`metrics.dice` of a stream; NaN with one warning when no pixel is marked and none is flagged."""
    state = bounds.check(state)
    true, false, positives = _flagged(state, threshold)
    if positives + false[1] == 0:
        return _undefined("Dice of nothing with nothing")
    return _between(lambda t, f: 2 * t / (t + f + positives) if t + f + positives else 0.0, true, false)


def aupimo(state: State, fpr_bounds: tuple[float, float] = (1e-5, 1e-4)) -> Bounded:
    """The mean over anomalous images of `metrics.aupimo`.

    It needs only the mean of their true positive rates, so the size of the state does not depend on the number of images. The
    bound is large if few normal pixels lie within the lower bound.

    Returns:
      `Bounded`; NaN with one warning without an anomalous or without a normal image. One warning when the lower bound is less
      than one pixel of the normal images.

    Raises:
      UserError: as `compute`, or the bounds are out of order.
    """
    check_bounds(fpr_bounds)
    state = bounds.check(state)
    totals = state.counts.totals
    if not totals["normal_images"] or not totals["anomalous_images"]:
        return _undefined("AUPIMO needs normal and anomalous images")
    warn_unresolved(int(totals["normal_pixels"]), fpr_bounds[0])
    x = bounds.range_of(state, ("normal_image",), float(totals["normal_images"]))
    y = bounds.range_of(state, ("recall",), float(totals["anomalous_images"]))
    return bounds.area(bounds.curve(state, x, y), partial(log_ramp_area, lower=fpr_bounds[0], upper=fpr_bounds[1]))


def _curve(state: State, x: str, y: str, fractions: bool = False) -> bounds.Curve:
    """y over x, as counts or as fractions."""
    sizes = {"normal": _sum(state, "normal"), "defect": _sum(state, "defect"), "region": float(state.counts.totals["regions"])}
    ranges = (bounds.range_of(state, (name,), sizes[name] if fractions else 1.0) for name in (x, y))
    return bounds.curve(state, *ranges)


def _sum(state: State, name: str) -> float:
    return float(np.sum(state.counts.sums[name], dtype=np.float64))


def _both(state: State) -> bool:
    return _sum(state, "defect") > 0 and _sum(state, "normal") > 0


def _flagged(state: State, threshold: float) -> tuple[Sequence[float], Sequence[float], float]:
    """(Least, most) true positives and false positives at a threshold, and the number of positives."""
    true, false = (bounds.count_at(state, bounds.range_of(state, (name,)), threshold) for name in ("defect", "normal"))
    return true, false, _sum(state, "defect")


def _between(figure: Callable[[float, float], float], true: Sequence[float], false: Sequence[float]) -> Bounded:
    """`figure(true, false)` in the middle of the ranges, and its bound."""
    value = figure(sum(true) / 2, sum(false) / 2)
    # precision is 0 if nothing is flagged, so all four corners are computed
    ends = [figure(t, f) for t in true for f in false]
    return Bounded(float(value), float(max(abs(end - value) for end in ends)))


def _undefined(reason: str) -> Bounded:
    nan = undefined(reason)
    return Bounded(nan, nan)
