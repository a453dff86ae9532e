"""The bins of a streaming state.

A float32 score is mapped to a 32-bit key of the same order. The upper 16 bits of the key choose one of 65,536 intervals. A
plan cuts each interval into a power of two of bins, from 1 to 65,536 (one for each float32 value). Plans change while scores
come in, so that bins are fine where they are needed.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["INTERVALS", "Plan", "allocate", "edges", "find", "interval_of", "keys", "plan_of"]

INTERVALS = 1 << 16
_WIDTH = 16
_TOP_BIT = 1 << 31
_END = 1 << 32


class Plan(NamedTuple):
    """How keys fall into bins: bin = start[key >> 16] + ((key & 65535) >> shift[key >> 16]).

    Attributes:
      start: `[65536]` int32, the first bin of each interval.
      shift: `[65536]` int32, from 0 (a bin per float32 value) to 16.
    """

    start: Any
    shift: Any


def keys(scores: Any, xp: Any) -> Any:
    """uint32 keys in the order of the float32 scores; -0 equals 0."""
    scores = xp.where(scores == 0, xp.float32(0), scores.astype(xp.float32))
    bits = scores.view(np.uint32) if xp is np else jax.lax.bitcast_convert_type(scores, jnp.uint32)
    # the bits of negative floats grow downwards: they are inverted, and the others are put above them
    return xp.where(bits >= xp.uint32(_TOP_BIT), ~bits, bits | xp.uint32(_TOP_BIT))


def interval_of(scores: Any, xp: Any) -> Any:
    """int32 number of the interval of each score."""
    return (keys(scores, xp) >> xp.uint32(_WIDTH)).astype(xp.int32)


def find(plan: Plan, scores: Any, xp: Any) -> Any:
    """int32 bin of each float32 score."""
    found = keys(scores, xp)
    interval = (found >> xp.uint32(_WIDTH)).astype(xp.int32)
    inside = (found & xp.uint32(INTERVALS - 1)).astype(xp.int32)
    return plan.start[interval] + (inside >> plan.shift[interval])


def edges(plan: Plan, num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """The lower edges of the bins, and which bins hold more than one float32 value.

    Returns:
      `[num_bins]` int64 keys, 2^32 for unused bins, and `[num_bins]` bool.
    """
    pieces = 1 << (_WIDTH - np.asarray(plan.shift, np.int64))
    used = pieces.sum()
    interval = np.repeat(np.arange(INTERVALS), pieces)
    shift = np.asarray(plan.shift, np.int64)[interval]
    begin = np.full(num_bins, _END)
    begin[:used] = (interval << _WIDTH) + ((np.arange(used) - np.asarray(plan.start, np.int64)[interval]) << shift)
    return begin, np.pad(shift > 0, (0, num_bins - used))


def plan_of(pieces: np.ndarray) -> Plan:
    """The plan that cuts interval i into `pieces[i]` bins, a power of two; `[65536]` int."""
    start = np.concatenate([[0], np.cumsum(pieces)[:-1]]).astype(np.int32)
    return Plan(start, (_WIDTH - np.log2(pieces)).astype(np.int32))


def allocate(mass: np.ndarray, num_bins: int) -> np.ndarray:
    """The number of bins of each interval: powers of two, at most `num_bins` in total.

    The sum of `mass` / bins is least if bins are in proportion to the square root of `mass`. Half of the bins lie evenly.
    """
    base = num_bins // (2 * INTERVALS)
    fraction = np.sqrt(mass)
    fraction = fraction / max(fraction.sum(), 1e-300)
    wish = base + (num_bins - base * INTERVALS) * fraction
    pieces = np.minimum(1 << np.log2(wish).astype(np.int64), INTERVALS)
    while True:
        # rounding leaves bins: the intervals that need them most are doubled
        order = np.argsort(-fraction / pieces, kind="stable")
        order = order[(fraction[order] > 0) & (pieces[order] < INTERVALS)]
        grown = order[np.cumsum(pieces[order]) <= num_bins - pieces.sum()]
        if not len(grown):
            return pieces
        pieces[grown] *= 2
