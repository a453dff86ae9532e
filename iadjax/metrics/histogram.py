"""The state of fixed size that streaming pixel metrics are computed from.

A float32 score is mapped to a 32-bit key of the same order. Its upper 16 bits choose one of 65,536 intervals, each of which
is cut into a power of two of bins, from a few to one per float32 value: a plan, made from a sample of scores, says how many.
The state counts normal and defect pixels and sums PRO weights per bin. At the edges of the bins every curve is exact; inside a
bin the order is unknown, which bounds the error of every metric from both sides. A bin of one float32 value has no error.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.components import region_areas
from iadjax.metrics.inputs import as_binary, as_pairs, as_scores, on_accelerator

__all__ = ["Counts", "Plan", "State", "accumulate", "component_areas", "init", "merge", "refine", "update"]

_INTERVALS = 1 << 16
_WIDTH = 16
_TOP_BIT = 1 << 31


class Plan(NamedTuple):
    """How keys fall into bins: bin = start[key >> 16] + ((key & 65535) >> shift[key >> 16]).

    Attributes:
      start: `[65536]` int32.
      shift: `[65536]` int32, from 0 (a bin per float32 value) to 16.
    """

    start: Any
    shift: Any


class Counts(NamedTuple):
    """What was seen; every field adds up over batches, devices and processes.

    Attributes:
      normal: `[bins]` pixels outside defects; int64 on the host, uint32 on a device.
      defect: `[bins]` pixels of defects, likewise.
      overlap: `[bins]` sum over defect pixels of 1 / area of their component; float64 on the host, float32 on a device.
      regions: `[]` components.
      broken: `[]` NaN and infinite scores, which are counted nowhere else.
    """

    normal: Any
    defect: Any
    overlap: Any
    regions: Any
    broken: Any


class State(NamedTuple):
    """A pytree. In a `shard_map`: `state._replace(counts=jax.lax.psum(state.counts, axis))`, from states with one plan."""

    plan: Plan
    counts: Counts


def init(pilot: Any = None, num_bins: int = 1 << 20) -> State:
    """An empty state on the host.

    Args:
      pilot: scores like those to come, of any shape: the maps of a few images. Half of the bins go where it has scores, in
        proportion to the square root of their number; the rest covers all float32 values evenly. None: all evenly, 16 bins for
        each 1/128 of a power of two, which is coarse for scores in a narrow range. All states to be merged need one plan.
      num_bins: a power of two, at least 2^17. A state takes 12 bytes per bin on a device, 24 on the host.

    Raises:
      UserError: num_bins is not such a number, or `pilot` holds NaN or infinities (counted).
    """
    if num_bins < 2 * _INTERVALS or num_bins & (num_bins - 1):
        raise UserError(f"num_bins must be a power of two of at least {2 * _INTERVALS}, got {num_bins}")
    if pilot is None:
        return _empty(np.full(_INTERVALS, num_bins // _INTERVALS), num_bins)
    keys = _keys(as_scores(pilot, "pilot scores").ravel(), np)
    return _empty(_allocate(np.bincount(keys >> _WIDTH, minlength=_INTERVALS), num_bins), num_bins)


def refine(state: State) -> State:
    """An empty state for a second pass over the same maps, with the bins where the first pass was uncertain."""
    counts = jax.device_get(state.counts)
    normal, defect, overlap = (
        np.add.reduceat(np.asarray(each, np.float64), state.plan.start)
        for each in (counts.normal, counts.defect, counts.overlap)
    )
    mass = normal * (defect / max(defect.sum(), 1) + overlap / max(overlap.sum(), 1))
    return _empty(_allocate(mass, len(counts.normal)), len(counts.normal))


def update(state: State, maps: Any, masks: Any, valid: Any = None) -> State:
    """The state after a batch; components are labelled on the host.

    Args:
      state: from `init`, `update` or `merge`; not changed.
      maps: `[N, H, W]`, or a list of `[H, W]` arrays; float64 is rounded to float32. On an accelerator `accumulate`
        runs jitted.
      masks: as `maps`; bool, {0, 1} or {0, 255}.
      valid: `[N]` bool; False leaves an image out, as a padded one of the last batch. None: all.

    Raises:
      UserError: shapes differ or masks are not binary. NaN and infinities are counted, and raise in `compute`.
    """
    maps, masks = as_pairs(maps, masks)
    for i, (each, mask) in enumerate(zip(maps, masks, strict=True)):
        if valid is None or valid[i]:
            areas, regions = component_areas(as_binary(mask, "masks"))
            step = _jitted if on_accelerator(each) else _accumulate_host
            state = step(state, each, areas, regions)
    return state


def component_areas(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """`[H, W]` int32, the area of the 8-connected component of each marked pixel and 0 elsewhere; and their number."""
    areas = np.zeros(mask.shape, np.int32)
    areas[mask], regions = region_areas(mask)
    return areas, regions


def accumulate(state: State, maps: jax.Array, areas: jax.Array, regions: jax.Array) -> State:
    """The pure form of `update`, for use inside `jax.jit` and `jax.shard_map`.

    Args:
      state: a state of JAX arrays.
      maps: any shape, float.
      areas: the shape of `maps`, int32: area of the component of a defect pixel, 0 for a normal one, -1 for one to leave out.
      regions: number of components in this batch.
    """
    maps, areas = maps.ravel().astype(jnp.float32), areas.ravel()
    finite = jnp.isfinite(maps)
    bins = _bins(state.plan, maps, jnp)
    outside = len(state.counts.normal)
    normal = jnp.where(finite & (areas == 0), bins, outside)
    defect = jnp.where(finite & (areas > 0), bins, outside)
    weights = 1 / jnp.maximum(areas, 1).astype(jnp.float32)
    old = state.counts
    return state._replace(
        counts=Counts(
            old.normal.at[normal].add(1, mode="drop"),
            old.defect.at[defect].add(1, mode="drop"),
            old.overlap.at[defect].add(weights, mode="drop"),
            old.regions + regions,
            old.broken + jnp.sum(~finite & (areas >= 0)),
        )
    )


def merge(states: Sequence[State]) -> State:
    """One state from those of several batches, devices or processes; the order does not matter.

    Raises:
      UserError: there is none, or their plans differ.
    """
    if not states:
        raise UserError("merge needs at least one state")
    states = [jax.device_get(state) for state in states]
    plan = states[0].plan
    for state in states[1:]:
        if not all(np.array_equal(mine, other) for mine, other in zip(plan, state.plan, strict=True)):
            raise UserError("states with different plans cannot be merged; begin all of them from one init")
    return State(plan, jax.tree.map(lambda *fields: sum(map(_wide, fields)), *[state.counts for state in states]))


def _wide(field: Any) -> np.ndarray:
    field = np.asarray(field)
    return field.astype(np.float64 if field.dtype.kind == "f" else np.int64)


def _accumulate_host(state: State, scores: Any, areas: np.ndarray, regions: int) -> State:
    scores = np.asarray(scores).astype(np.float32, copy=False)
    finite, marked = np.isfinite(scores), areas > 0
    bins = _bins(state.plan, scores, np)
    old, size = state.counts, len(state.counts.normal)
    hit = marked & finite
    where = bins[hit]
    # only the bins that a defect reaches: most maps reach few
    defect, overlap = old.defect.copy(), old.overlap.copy()
    np.add.at(defect, where, 1)
    np.add.at(overlap, where, 1 / areas[hit])
    normal = old.normal + np.bincount(bins[finite & ~marked], minlength=size)
    return state._replace(counts=Counts(normal, defect, overlap, old.regions + regions, old.broken + np.sum(~finite)))


def _keys(scores: Any, xp: Any) -> Any:
    """uint32 of the order of float32 scores; -0 equals 0."""
    scores = xp.where(scores == 0, xp.float32(0), scores.astype(xp.float32))
    bits = scores.view(np.uint32) if xp is np else jax.lax.bitcast_convert_type(scores, jnp.uint32)
    # negative floats grow downwards: turn them over, and put the others above them
    return xp.where(bits >= xp.uint32(_TOP_BIT), ~bits, bits | xp.uint32(_TOP_BIT))


def _bins(plan: Plan, scores: Any, xp: Any) -> Any:
    keys = _keys(scores, xp)
    interval = (keys >> xp.uint32(_WIDTH)).astype(xp.int32)
    inside = (keys & xp.uint32(_INTERVALS - 1)).astype(xp.int32)
    return plan.start[interval] + (inside >> plan.shift[interval])


def _empty(pieces: np.ndarray, num_bins: int) -> State:
    start = np.concatenate([[0], np.cumsum(pieces)[:-1]]).astype(np.int32)
    shift = (_WIDTH - np.log2(pieces)).astype(np.int32)
    integers = [np.zeros(num_bins, np.int64) for _ in range(2)]
    return State(Plan(start, shift), Counts(*integers, np.zeros(num_bins), np.int64(0), np.int64(0)))


def _allocate(mass: np.ndarray, num_bins: int) -> np.ndarray:
    """Powers of two of bins per interval, at most `num_bins` together: least error for `mass` / bins is at its square root."""
    base = num_bins // (2 * _INTERVALS)
    share = np.sqrt(mass)
    share = share / max(share.sum(), 1e-300)
    wish = base + (num_bins - base * _INTERVALS) * share
    pieces = np.minimum(1 << np.log2(wish).astype(np.int64), _INTERVALS)
    while True:
        # rounding down left bins over: double the intervals that need it most
        order = np.argsort(-share / pieces, kind="stable")
        order = order[(share[order] > 0) & (pieces[order] < _INTERVALS)]
        grown = order[np.cumsum(pieces[order]) <= num_bins - pieces.sum()]
        if not len(grown):
            return pieces
        pieces[grown] *= 2


_jitted = jax.jit(accumulate)
