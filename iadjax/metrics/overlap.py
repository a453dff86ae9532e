"""Curves of an overlap over a false positive rate, and the area under them to a limit."""

from collections.abc import Sequence

import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.ranks import Ranks

__all__ = ["area_to_limit", "areas", "check_limits", "polyline"]


def polyline(ranks: Ranks) -> tuple[np.ndarray, np.ndarray]:
    """The whole curve as (x, y): `overlap` over negatives >= t as a share of all, from (0, 0) to x = 1.

    Passing a distinct score of positives moves from the negatives > t to those >= t, on a straight line; between two of
    them y is constant. The vertices at scores of negatives alone lie on these lines and are left out: nothing is binned.
    """
    x = np.empty(2 * len(ranks.true) + 2)
    y = np.empty_like(x)
    x[0] = y[0] = 0
    x[1:-1:2], x[2:-1:2], x[-1] = ranks.false_before, ranks.false, ranks.negatives
    y[1:-1:2][1:], y[2:-1:2], y[-1] = ranks.overlap[:-1], ranks.overlap, ranks.overlap[-1]
    y[1] = 0
    return x / ranks.negatives, y


def area_to_limit(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """Trapezoid under a polyline from x = 0 to `limit`, with linear interpolation there, divided by `limit`.

    Where the polyline rises vertically at the limit, nothing of the rise counts.
    """
    inside = int(np.searchsorted(x, limit, side="right"))
    x_in, y_in = x[:inside], y[:inside]
    area = np.sum(np.diff(x_in) * (y_in[1:] + y_in[:-1])) / 2
    if inside < len(x):
        step = limit - x_in[-1]
        slope = (y[inside] - y_in[-1]) / (x[inside] - x_in[-1])
        area += step * (y_in[-1] + slope * step / 2)
    return float(area / limit)


def areas(x: np.ndarray, y: np.ndarray, fpr_limit: float | Sequence[float]) -> float | tuple[float, ...]:
    """`area_to_limit` for one limit, or for each of several."""
    check_limits(fpr_limit)
    if isinstance(fpr_limit, Sequence):
        return tuple(area_to_limit(x, y, each) for each in fpr_limit)
    return area_to_limit(x, y, fpr_limit)


def check_limits(fpr_limit: float | Sequence[float]) -> None:
    """Raises a UserError for a limit outside (0, 1]."""
    for limit in fpr_limit if isinstance(fpr_limit, Sequence) else (fpr_limit,):
        if not 0 < limit <= 1:
            raise UserError(f"fpr_limit must be above 0 and at most 1, got {limit}")
