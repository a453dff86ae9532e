"""Areas under curves of a true positive rate, or of an overlap, over a false positive rate.

Every such curve is a sum of ramps, one per positive: y(x) = sum_e w_e ramp_e(x), where ramp_e rises on a straight line from 0
at the share of negatives above the positive's score to 1 at the share at or above it: a step where no negative is tied. So an
area is a sum over positives of their weight times the area under one ramp, in closed form: no grid, no binning. The same lines
serve NumPy on the host and jax.numpy under `jax.jit`.
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

    At each distinct score t of positives, descending, it moves on a straight line from the share of negatives > t to the share
    >= t; between two of them y is constant. The vertices at scores of negatives alone lie on these lines and are left out.

    Args:
      before: `[M]` share of the negatives > t.
      at: `[M]` share of the negatives >= t.
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
