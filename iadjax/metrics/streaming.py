"""Pixel metrics over a stream of maps: `init`, `update`, `merge`, `compute`, with error bounds that are computed, not assumed.

state = streaming.init(pilot=first_maps)
for maps, masks in batches:
    state = streaming.update(state, maps, masks)
metrics, error_bounds = streaming.compute(state)
"""

from typing import NamedTuple

import jax
import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.histogram import State, accumulate, component_areas, init, merge, refine, update
from iadjax.metrics.inputs import undefined
from iadjax.metrics.overlap import ramp_area
from iadjax.metrics.pixel import LIMITS

__all__ = ["State", "Streamed", "accumulate", "component_areas", "compute", "init", "merge", "refine", "update"]


class Streamed(NamedTuple):
    """Results of a stream.

    Attributes:
      metrics: the keys of `pixel_metrics`; the values treat the scores of one bin as tied.
      error_bounds: the same keys: the exact metric of the float32 scores is at most this far away.
    """

    metrics: dict[str, float]
    error_bounds: dict[str, float]


def compute(state: State) -> Streamed:
    """Metrics of everything that a streaming state has seen, with their error bounds.

    The bounds come from the counts, metric by metric. AUROC: half of the pairs that share a bin. Average precision and F1-max:
    the best and the worst order inside every bin. AU-PRO: half of each bin's rectangle of FPR and PRO, the whole of it where
    the limit cuts a bin, and the rounding of float32 sums. Bins of one float32 value are ties, not unknowns: they add nothing.

    Returns:
      `Streamed`; all NaN, with one warning, without a defect or without a defect-free pixel.

    Raises:
      UserError: NaN or infinite scores were seen; they are counted.
    """
    counts = jax.device_get(state.counts)
    if counts.broken:
        raise UserError(f"maps hold {int(counts.broken)} NaN or infinite values; find out which image they come from")
    keys = ("pixel_auroc", "pixel_ap", "pixel_f1max", *LIMITS)
    if not counts.defect.any() or not counts.normal.any():
        nan = undefined("pixel metrics need a defect and defect-free pixels")
        return Streamed(dict.fromkeys(keys, nan), dict.fromkeys(keys, nan))
    used = np.flatnonzero(counts.defect)[::-1]
    interval = np.searchsorted(state.plan.start, used, side="right") - 1
    bins = _Bins(counts, used, open=np.asarray(state.plan.shift)[interval] > 0)
    pairs = [bins.auroc(), bins.average_precision(), bins.f1_max(), *(bins.aupro(limit) for limit in LIMITS.values())]
    return Streamed(*(dict(zip(keys, map(float, column), strict=True)) for column in zip(*pairs, strict=True)))


class _Bins:
    """The M bins that hold defect pixels, in decreasing order; each method gives (value, bound)."""

    def __init__(self, counts, used: np.ndarray, open: np.ndarray):
        normal_from = np.cumsum(np.asarray(counts.normal, np.int64)[::-1])[::-1]
        self.open = open
        self.defect = np.asarray(counts.defect, np.int64)[used]
        self.normal = np.asarray(counts.normal, np.int64)[used]
        self.true = np.cumsum(self.defect)
        self.false = normal_from[used]
        self.before = self.false - self.normal
        self.positives, self.negatives = self.true[-1], normal_from[0]
        self.weight = np.asarray(counts.overlap, np.float64)[used] / counts.regions
        self.unit = np.finfo(counts.overlap.dtype).eps

    def auroc(self):
        pairs = self.positives * self.negatives
        value = np.sum(self.defect * (self.negatives - (self.false + self.before) / 2)) / pairs
        return value, np.sum((self.defect * self.normal)[self.open]) / (2 * pairs)

    def average_precision(self):
        value = self.defect * (self.true / (self.true + self.false))
        # best: all defect pixels tied and above the normal ones; worst: one by one below them
        best = self.defect * (self.true / (self.true + self.before))
        above = self.true - self.defect + self.false
        # sum over i = 1..d of F / (above + i) <= F log(1 + d / above); where F = 0 there is nothing to lose
        worst = self.defect - self.false * np.log1p(self.defect / np.maximum(above, 1))
        bound = max(np.sum((best - value)[self.open]), np.sum((value - worst)[self.open]))
        return value.sum() / self.positives, bound / self.positives

    def f1_max(self):
        value = np.max(2 * self.true / (self.true + self.false + self.positives))
        best = 2 * self.true / (self.true + self.before + self.positives)
        return value, max(np.max(best, where=self.open, initial=0) - value, 0)

    def aupro(self, limit: float):
        before, at = self.before / self.negatives, self.false / self.negatives
        value = np.sum(self.weight * ramp_area(before, at, limit))
        cut = (before < limit) & (limit < at)
        height = np.where(cut, limit - before, np.where(at <= limit, (at - before) / 2, 0))
        rounding = np.sum(self.unit * self.defect * self.weight)
        return value, np.sum((height * self.weight)[self.open]) / limit + rounding
