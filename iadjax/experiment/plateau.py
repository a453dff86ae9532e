"""Early stopping: whether the training loss of a phase no longer falls."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = ["is_flat", "looks"]

# losses that a mean is taken over at least: below that it is mostly noise
_LEAST = 10
# a loss is flat if it fell by less than this part of all its fall
_PART = 0.01


def is_flat(losses: Sequence[float], fraction: float) -> bool:
    """Whether a loss has been flat over the last `fraction` of its steps.

    It is flat if the mean of the last half of these steps lies below that of the first half by at most a hundredth of the fall
    since the phase began, measured by as many losses. So its unit, its sign and an offset do not matter.

    Args:
      losses: of every step so far.
      fraction: in (0, 1). With fewer than 20 losses in it, the answer is no.
    """
    half = int(len(losses) * fraction / 2)
    if half < _LEAST:
        return False
    values = np.asarray(losses, np.float64)
    first, before, last = values[:half].mean(), values[-2 * half : -half].mean(), values[-half:].mean()
    return bool(before - last <= _PART * max(first - last, 0.0))


def looks(before: int, now: int, fraction: float) -> bool:
    """Whether to look at the loss after `now` steps of a phase; the pass over the images that ended there began after `before`.

    Once for each growth of the steps by `fraction`. With a look after every pass, noise would end every long phase.
    """

    def growths(steps: int) -> int:
        return int(math.log(steps) / math.log1p(fraction)) if steps > 0 else -1

    return growths(now) > growths(before)
