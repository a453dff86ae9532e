"""Areas under curves of a true positive rate, or of an overlap, over a false positive rate.

Every such curve is a sum of ramps, one for each positive: y(x) = sum_e w_e ramp_e(x). ramp_e is 0 up to the fraction of
negatives above the positive's score. From there it rises on a straight line to 1 at the fraction at or above it. It is
a step if no negative has that score. So an area is a sum over positives: weight times area under one ramp, in closed form.
There is no grid and no binning. The same code serves NumPy on the host and jax.numpy under `jax.jit`.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError

__all__ = ["check_limits", "log_ramp_area", "namespace", "polyline", "ramp_area", "real", "total"]


def namespace(array: Any) -> Any:
    """jax.numpy for a JAX array or tracer, else numpy."""
    return jnp if isinstance(array, jax.Array) else np


def real(array: Any) -> Any:
    """As floats: float64 on the host, JAX's default float (float64 with x64) on a device."""
    return array.astype(jnp.result_type(float)) if isinstance(array, jax.Array) else np.asarray(array, np.float64)


def total(values: Any) -> Any:
    """Sum of `[n]` values; in float32 added in pairs, so that the rounding grows with log n."""
    if namespace(values) is np:
        return np.sum(values)
    size = 1 << max(values.size - 1, 0).bit_length()
    values = jnp.pad(values, (0, size - values.size))
    while size > 1:
        size //= 2
        values = values[:size] + values[size:]
    return values[0]


def ramp_area(before: Any, at: Any, limit: float) -> Any:
    """(1 / limit) * integral from 0 to `limit` of a ramp that rises from 0 at x = `before` to 1 at x = `at`.

    A step exactly at the limit counts nothing.

    Args:
      before, at: `[n]` floats, 0 <= before <= at.
      limit: in (0, 1].

    Returns:
      `[n]` floats.
    """
    xp = namespace(before)
    inside = xp.clip(limit - before, 0, None)
    cut = inside * inside / xp.where((at > limit) & (at > before), 2 * (at - before), 1)
    return xp.where(at > limit, cut, limit - (before + at) / 2) / limit


def log_ramp_area(before: Any, at: Any, lower: float, upper: float) -> Any:
    """(1 / log(upper / lower)) * integral from `lower` to `upper` of the same ramp over d log x; 0 < lower < upper."""
    xp = namespace(before)
    left, right = xp.clip(before, lower, upper), xp.clip(at, lower, upper)
    width = xp.where(at > before, at - before, 1)
    # the integral of (x - before) / width; log1p keeps what cancels below one rounding
    rise = xp.where(right > left, ((right - left) - before * xp.log1p((right - left) / left)) / width, 0)
    return (rise + xp.log(upper / right)) / xp.log(upper / lower)


def polyline(before: Any, at: Any, overlap: Any) -> tuple[Any, Any]:
    """The whole curve as (x, y), from (0, 0) to x = 1.

    At each distinct score t of positives, descending, x moves from the fraction of negatives > t to the fraction >= t, and y
    rises on a straight line. Between two such scores y is constant. Vertices at scores of negatives alone lie on these lines
    and are left out.

    Args:
      before: `[M]` fraction of the negatives > t.
      at: `[M]` fraction of the negatives >= t.
      overlap: `[M]` y at t.
    """
    xp = namespace(before)
    x = xp.concatenate([xp.zeros(1), xp.stack([before, at], axis=1).ravel(), xp.ones(1)])
    return x, xp.concatenate([xp.zeros(2), xp.repeat(overlap, 2)])


def check_limits(fpr_limit: float | Sequence[float]) -> None:
    """Raises a UserError for a limit outside (0, 1]."""
    for limit in fpr_limit if isinstance(fpr_limit, Sequence) else (fpr_limit,):
        if not 0 < limit <= 1:
            raise UserError(f"fpr_limit must be above 0 and at most 1, got {limit}")
