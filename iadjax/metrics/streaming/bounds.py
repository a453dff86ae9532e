"""Metrics from binned curves, with bounds from the best and the worst order of scores inside the bins."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.inputs import least_at
from iadjax.metrics.streaming.bins import edges, keys
from iadjax.metrics.streaming.state import State

__all__ = ["Bounded", "Curve", "Range", "area", "average_precision", "check", "count_at", "curve", "largest", "range_of"]


class Bounded(NamedTuple):
    """A metric of a stream.

    Attributes:
      value: the metric if all scores in one bin were equal.
      error_bound: largest difference from the exact metric of the float32 scores.
    """

    value: float
    error_bound: float


class Range(NamedTuple):
    """Least and most weight at or above +inf, then at or above the lower edge of each bin, downwards: `[bins + 1]` float64."""

    low: np.ndarray
    high: np.ndarray


class Curve(NamedTuple):
    """The M bins in which y rises, downwards.

    Attributes:
      x_before, x_at: `Range` of `[M]`, the weight of x above the bin, and with the bin.
      y_before, y_at: likewise for y.
      open: `[M]` bool, whether the order of the scores in a bin is unknown; False: they are tied.
    """

    x_before: Range
    x_at: Range
    y_before: Range
    y_at: Range
    open: np.ndarray


def check(state: State) -> State:
    """The state on the host.

    Raises:
      UserError: NaN or infinite scores were seen; they are counted.
    """
    state = jax.device_get(state)
    broken = int(state.counts.totals["broken"])
    if broken:
        raise UserError(f"maps hold {broken} NaN or infinite values; find out which image they come from")
    return state


def range_of(state: State, names: tuple[str, ...], total: float = 1.0) -> Range:
    """The `Range` of summed weights, divided by `total`."""
    low = high = np.zeros(())
    for name in names:
        counts = state.counts
        field, slack = (np.asarray(each[name])[::-1].astype(np.float64) for each in (counts.sums, counts.slack))
        below = np.cumsum(field)
        rounding = np.zeros(())
        if counts.sums[name].dtype.kind == "f":
            # each addition to a bin rounds, and so does each step of the running sum
            added = functools.reduce(np.add, (each for each in counts.sums.values() if each.dtype.kind == "i"))[::-1]
            rounding = np.cumsum(field * (added + 4.0)) * float(state.unit)
            rounding += below * np.finfo(np.float64).eps * 32
        low, high = low + np.maximum(below - rounding, 0), high + below + slack + rounding
    low, high = (np.maximum.accumulate(np.concatenate([[0.0], each])) / total for each in (low, high))
    return Range(low, high)


def curve(state: State, x: Range, y: Range) -> Curve:
    """The bins that a metric of y over x depends on."""
    rises = np.flatnonzero((np.diff(y.low) > 0) | (np.diff(y.high) > 0))
    wide = edges(state.plan, len(x.low) - 1)[1][::-1]
    before, at = ([Range(each.low[index], each.high[index]) for each in (x, y)] for index in (rises, rises + 1))
    return Curve(before[0], at[0], before[1], at[1], wide[rises])


def area(found: Curve, ramp: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Bounded:
    """The area under y over x.

    Args:
      found: the curve.
      ramp: `(before, at) -> area` under a ramp of height 1 that rises between them; the later it rises, the smaller the area.
    """
    x0, x1, y0, y1 = found.x_before, found.x_at, found.y_before, found.y_at
    best = np.sum((y1.high - y0.high) * ramp(x0.low, np.where(found.open, x0.low, x1.low)))
    worst = np.sum((y1.low - y0.low) * ramp(np.where(found.open, x1.high, x0.high), x1.high))
    middle = [(each.low + each.high) / 2 for each in found[:4]]
    return _bounded(np.sum((middle[3] - middle[2]) * ramp(middle[0], middle[1])), worst, best)


def average_precision(found: Curve) -> Bounded:
    """Average precision of a curve of true positives over false positives, both as counts."""
    x0, x1, y0, y1 = found.x_before, found.x_at, found.y_before, found.y_at
    false = np.where(found.open, x0.low, x1.low)
    best = np.sum((y1.high - y0.high) * y1.high / np.maximum(y1.high + false, 1e-300))
    rise, false = y1.low - y0.low, x1.high
    # the worst order has positives below the negatives of their bin:
    # sum over k = a + 1 .. a + d of k / (k + F) >= d - F log((a + d + F) / (a + F))
    start = np.maximum(y0.low + false, 1e-300)
    ordered = rise - np.where(false > 0, false * np.log1p(rise / start), 0)
    worst = np.sum(np.where(found.open, ordered, rise * y1.low / np.maximum(y1.low + false, 1e-300)))
    middle = [(each.low + each.high) / 2 for each in found[:4]]
    value = np.sum((middle[3] - middle[2]) * middle[3] / np.maximum(middle[3] + middle[1], 1e-300))
    return _bounded(*(each / y1.high[-1] for each in (value, worst, best)))


def largest(found: Curve, figure: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Bounded:
    """The largest `figure(true, false)`; it must rise with the true and fall with the false positives."""
    best = np.max(figure(found.y_at.high, np.where(found.open, found.x_before.low, found.x_at.low)))
    worst = np.max(figure(found.y_at.low, found.x_at.high))
    middle = [(each.low + each.high) / 2 for each in (found.y_at, found.x_at)]
    return _bounded(np.max(figure(*middle)), worst, best)


def count_at(state: State, found: Range, threshold: float) -> tuple[float, float]:
    """Least and most weight of the scores at or above a threshold."""
    low = least_at(threshold, np.float32)
    # nothing is flagged by a threshold above the greatest float32, or by NaN
    if not low <= np.finfo(np.float32).max:
        return 0.0, 0.0
    key = int(keys(np.maximum(np.full(1, low), np.finfo(np.float32).min), np)[0])
    begin = edges(state.plan, len(found.low) - 1)[0]
    index = int(np.searchsorted(begin, key, side="right")) - 1
    lower = len(begin) - index
    return (found.low[lower if begin[index] == key else lower - 1], found.high[lower])


def _bounded(value: float, worst: float, best: float) -> Bounded:
    return Bounded(float(value), float(max(best - value, value - worst, 0.0)))
