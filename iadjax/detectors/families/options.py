"""Checks of a detector's numeric options, with one sentence for all of them."""

import math
import re

from iadjax.errors import UserError

__all__ = ["check_multiple", "check_odd", "check_options"]


def check_options(interval: str, **options: float) -> None:
    """Checks that numbers lie in an interval.

    Args:
      interval: like "(0, 1]" or "[1, inf)": a round bracket leaves its end out.
      options: the keywords of the detector with their values.

    Raises:
      UserError: a value outside, infinite or NaN; the option is named.
    """
    opening, low, high, closing = re.fullmatch(r"([(\[])(\S+), (\S+)([)\]])", interval).groups()
    low, high = float(low), float(high)
    for name, value in options.items():
        above = value >= low if opening == "[" else value > low
        below = value <= high if closing == "]" else value < high
        if not (above and below and math.isfinite(value)):
            allowed = f"in {interval}"
            if high == math.inf:
                allowed = f"at least {low:g}" if opening == "[" else f"above {low:g}"
            raise UserError(f"detector.{name} must be {allowed}, got {value}")


def check_odd(**options: int) -> None:
    """A UserError where an option is no positive odd number."""
    for name, value in options.items():
        if value < 1 or value % 2 == 0:
            raise UserError(f"detector.{name} must be a positive odd number, got {value}")


def check_multiple(factor: int, **options: int) -> None:
    """A UserError where an option is no positive multiple of a number."""
    for name, value in options.items():
        if value < factor or value % factor:
            raise UserError(f"detector.{name} must be a positive multiple of {factor}, got {value}")
