"""Curves of an overlap over a false positive rate, and the area under them to a limit."""

from collections.abc import Sequence

import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.ranks import Ranks

__all__ = ["area_to_limit", "areas", "check_limits", "polyline", "ranks_polyline"]


def polyline(before: np.ndarray, at: np.ndarray, overlap: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The whole curve as (x, y), from (0, 0) to x = 1.

    At each distinct score t of positives, descending, it moves on a straight line from the share of negatives > t to the share
    >= t; between two of them y is constant. The vertices at scores of negatives alone lie on these lines and are left out:
    nothing is binned.

    Args:
      before: `[M]` share of the negatives > t.
      at: `[M]` share of the negatives >= t.
      overlap: `[M]` y at t.
    """
    x = np.concatenate([[0.0], np.stack([before, at], axis=1).ravel(), [1.0]])
    y = np.concatenate([[0.0, 0.0], np.repeat(overlap, 2)])
    return x, y


def ranks_polyline(ranks: Ranks) -> tuple[np.ndarray, np.ndarray]:
    """`polyline` of `overlap` over the false positive rate."""
    return polyline(ranks.false_before / ranks.negatives, ranks.false / ranks.negatives, ranks.overlap)


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
