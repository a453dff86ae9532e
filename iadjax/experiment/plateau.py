"""Early stopping: whether the training loss of a phase no longer falls."""

from collections.abc import Sequence

import numpy as np

__all__ = ["is_flat", "looks", "window_of"]

# losses that a mean is taken over at least: below that it is mostly noise
_LEAST = 10
# a loss is flat if it fell by less than this part of all its fall
_PART = 0.01


def window_of(fraction: float, steps: int) -> int:
    """Steps over which a loss must be flat: a fraction of those of the phase's schedule."""
    return int(fraction * steps)


def is_flat(losses: Sequence[float], window: int) -> bool:
    """Whether a loss has been flat over its last `window` steps.

    It is flat if the mean of the last half of these steps lies below that of the first half by at most a hundredth of the fall
    since the phase began, measured by as many losses. So its unit, its sign and an offset do not matter.

    Args:
      losses: of every step so far.
      window: with fewer than 20, or fewer losses than half as many more, the answer is no.
    """
    half = window // 2
    if half < _LEAST or len(losses) < 3 * half:
        return False
    values = np.asarray(losses, np.float64)
    first, before, last = values[:half].mean(), values[-2 * half : -half].mean(), values[-half:].mean()
    return bool(before - last <= _PART * max(first - last, 0.0))


def looks(before: int, now: int, window: int) -> bool:
    """Whether to look at the loss after `now` steps of a phase; the pass over the images that ended there began after `before`.

    Once for each half of `window`. With a look after every pass, noise would end every long phase.
    """
    half = max(window // 2, 1)
    return now // half > before // half
