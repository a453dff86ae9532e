"""A state of fixed size: weighted counts in bins, and the uncertainty where bins were cut later.

Take the lower edge of a bin and the total weight of the pixels at or above it. That weight is at least the sum of the bins from
there up, and at most that sum plus the slack of the edge. A new edge has the slack of the bin that it cuts; others have none.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.inputs import as_scores
from iadjax.metrics.streaming.bins import INTERVALS, Plan, allocate, edges, find, interval_of, plan_of

__all__ = ["Counts", "State", "count_device", "count_host", "empty", "merge", "own", "place", "refine", "settle"]

CURVES = (
    (("normal",), "defect"),
    (("normal",), "region"),
    (("normal_image",), "recall"),
    (("good", "free_structural"), "structural"),
    (("good", "free_logical"), "logical"),
)
"""The curves: the weights of the x axis, which are added, and the weight of the y axis."""

# for cutting bins: defects may come where none was seen, and small false positive rates matter more
_PRIOR, _LEAST_RATE = 0.1, 1e-5


class Counts(NamedTuple):
    """What was counted. Every field can be added over batches, devices and processes if their states have one plan.

    Attributes:
      sums: name to `[bins]`, the sums of a weight. Whole numbers are int64 on the host and int32 on a device; others are
        float64 on the host and JAX's default float on a device.
      slack: likewise, for the lower edge of each bin: the most weight that may be at or above it in addition.
      totals: name to `[]` int, the divisors of the weights. "broken" counts NaN and infinite scores, which count nowhere else.
    """

    sums: dict[str, Any]
    slack: dict[str, Any]
    totals: dict[str, Any]


class State(NamedTuple):
    """The state of a stream, a pytree.

    In a `shard_map`, empty states of one plan are added by `state._replace(counts=jax.lax.psum(state.counts, axis))`.

    Attributes:
      plan: the bins.
      counts: what was counted.
      planned: `[]` float32, the number of pixels from which the plan was made.
      unit: `[]` float32, largest relative rounding of one addition to a sum of floats.
    """

    plan: Plan
    counts: Counts
    planned: Any
    unit: Any


def empty(whole: Sequence[str], real: Sequence[str], totals: Sequence[str], pilot: Any, num_bins: int) -> State:
    """An empty state for the given weights: `whole` numbers and `real` ones. `pilot` and errors as `init`."""
    if num_bins < 2 * INTERVALS or num_bins & (num_bins - 1):
        raise UserError(f"num_bins must be a power of two of at least {2 * INTERVALS}, got {num_bins}")
    pieces, planned = np.full(INTERVALS, num_bins // INTERVALS), 0
    if pilot is not None:
        pilot = as_scores(pilot, "pilot scores").ravel()
        pieces, planned = allocate(_mass_of(_intervals(pilot)), num_bins), pilot.size
    fields = {name: np.int64 for name in whole} | {name: np.float64 for name in real}

    def zeros():
        return {name: np.zeros(num_bins, kind) for name, kind in fields.items()}

    counts = Counts(zeros(), zeros(), {name: np.int64(0) for name in (*totals, "broken")})
    return State(plan_of(pieces), counts, np.float32(planned), np.float32(np.finfo(np.float64).eps / 2))


def place(state: State, scores: Sequence[Any]) -> State:
    """The state with bins placed by a list of score arrays, if no earlier scores have placed them."""
    if float(state.planned) or not scores:
        return state
    intervals = functools.reduce(np.add, (_intervals(each) for each in scores))
    planned = np.float32(sum(each.size for each in scores))
    return _moved(state, allocate(_mass_of(intervals), _num_bins(state)), planned)


def settle(state: State) -> State:
    """The state with bins moved, if twice as many pixels were counted as its plan was made from and if it pays."""
    # every pixel is counted once as a whole number
    seen = sum(float(each.sum(dtype=float)) for each in state.counts.sums.values() if each.dtype.kind == "i")
    if seen < 2 * float(state.planned):
        return state
    sums = _interval_sums(state)
    mass = _mass(sums)
    better = allocate(mass, _num_bins(state))
    now = 1 << (16 - np.asarray(state.plan.shift, np.int64))
    # the expected error: a small gain does not pay for the slack of new edges
    if np.sum(mass / better) > 0.7 * np.sum(mass / now):
        return state._replace(planned=np.float32(seen))
    return _moved(state, better, np.float32(seen))


def refine(state: State) -> State:
    """An empty state for a second pass over the same maps, with the bins where the first pass was uncertain."""
    pieces = allocate(_mass(_interval_sums(state)), _num_bins(state))
    zero = jax.tree.map(np.zeros_like, _wide(state.counts))
    return State(plan_of(pieces), zero, state.planned, np.float32(np.finfo(np.float64).eps / 2))


def merge(states: Sequence[State]) -> State:
    """One state on the host, from those of several batches, devices or processes.

    States of one plan are added, in any order. Others are moved to a common plan first. The result then differs from that of
    one state over everything, but both are within their error bounds.

    Raises:
      UserError: there is none, or they count different things.
    """
    if not states:
        raise UserError("merge needs at least one state")
    states = [jax.device_get(state) for state in states]
    if len({(tuple(sorted(state.counts.sums)), _num_bins(state)) for state in states}) > 1:
        raise UserError("states of different kinds or sizes cannot be merged")
    first = states[0].plan
    if any(not np.array_equal(first.shift, state.plan.shift) for state in states):
        sums = [_interval_sums(state) for state in states]
        mass = _mass({name: functools.reduce(np.add, (each[name] for each in sums)) for name in sums[0]})
        pieces = allocate(mass, _num_bins(states[0]))
        states = [_moved(state, pieces, state.planned) for state in states]
    counts = jax.tree.map(lambda *each: sum(each), *[_wide(state.counts) for state in states])
    return State(states[0].plan, counts, np.float32(sum(s.planned for s in states)), np.float32(max(s.unit for s in states)))


def own(state: State) -> State:
    """A copy of the state on the host, whose sums and totals `count_host` may change."""
    sums, slack, totals = jax.device_get(state.counts)
    wide = _wide(Counts(sums, {}, totals))
    return State(state.plan, Counts(wide.sums, slack, wide.totals), state.planned, state.unit)


def count_host(state: State, scores: np.ndarray, weights: Mapping[str, np.ndarray], totals: Mapping[str, int]) -> None:
    """Adds to the host arrays of a state, in place.

    Args:
      state: with arrays of its own.
      scores: `[n]` floats; rounded to float32. NaN and infinities are counted as broken where any weight is not 0.
      weights: name to `[n]`.
      totals: name to number.
    """
    scores = scores.astype(np.float32, copy=False)
    finite = np.isfinite(scores)
    where = find(state.plan, scores, np)
    seen = np.zeros(scores.shape, bool)
    for name, weight in weights.items():
        used = weight != 0
        seen |= used
        used &= finite
        field = state.counts.sums[name]
        values = weight[used].astype(field.dtype, copy=False)
        if values.size > field.size // 16:
            field += np.bincount(where[used], None if field.dtype.kind == "i" else values, minlength=field.size)
        else:
            np.add.at(field, where[used], values)
    for name, number in (*totals.items(), ("broken", np.sum(seen & ~finite))):
        state.counts.totals[name] += number


def count_device(state: State, scores: jax.Array, weights: Mapping[str, jax.Array], totals: Mapping[str, Any]) -> State:
    """`count_host` as a pure function, for use inside `jax.jit`."""
    scores = scores.astype(jnp.float32)
    finite = jnp.isfinite(scores)
    where = find(state.plan, scores, jnp)
    sums, seen = dict(state.counts.sums), jnp.zeros(scores.shape, bool)
    for name, weight in weights.items():
        field, used = jnp.asarray(sums[name]), weight != 0
        seen |= used
        sums[name] = field.at[jnp.where(used & finite, where, field.size)].add(weight.astype(field.dtype), mode="drop")
    added = {**totals, "broken": jnp.sum(seen & ~finite)}
    old = state.counts.totals
    unit = jnp.maximum(state.unit, jnp.finfo(jnp.result_type(float)).eps / 2)
    counts = Counts(sums, state.counts.slack, {name: old[name] + added.get(name, 0) for name in old})
    return State(state.plan, counts, state.planned, unit)


def _moved(state: State, pieces: np.ndarray, planned: Any) -> State:
    """The same counts over other bins."""
    plan, num_bins = plan_of(pieces), _num_bins(state)
    counts = _wide(state.counts)
    old, new = edges(state.plan, num_bins)[0], edges(plan, num_bins)[0]
    index = np.searchsorted(old, new, side="right") - 1
    known, past = old[index] == new, new == 1 << 32
    sums, slack = {}, {}
    for name, field in counts.sums.items():
        above = np.concatenate([np.cumsum(field[::-1])[::-1], np.zeros(1, field.dtype)])
        lower = np.where(past, 0, np.where(known, above[index], above[index + 1]))
        most = above[index] + counts.slack[name][index]
        slack[name] = np.where(past, 0, np.where(known, counts.slack[name][index], most - above[index + 1]))
        sums[name] = lower - np.append(lower[1:], np.zeros(1, field.dtype))
    return State(plan, Counts(sums, slack, counts.totals), planned, state.unit)


def _wide(counts: Counts) -> Counts:
    """Copies on the host, as int64 and float64."""
    return jax.tree.map(lambda each: np.array(each, np.float64 if each.dtype.kind == "f" else np.int64), jax.device_get(counts))


def _num_bins(state: State) -> int:
    return len(next(iter(state.counts.sums.values())))


def _intervals(scores: Any) -> np.ndarray:
    """The number of scores in each interval, `[65536]`; nothing else leaves a device."""
    if isinstance(scores, jax.Array):
        return np.asarray(_device_intervals(scores), np.float64)
    scores = np.ravel(scores).astype(np.float32, copy=False)
    return np.bincount(interval_of(scores[np.isfinite(scores)], np), minlength=INTERVALS).astype(np.float64)


@jax.jit
def _device_intervals(scores: jax.Array) -> jax.Array:
    scores = scores.ravel().astype(jnp.float32)
    return jnp.zeros(INTERVALS, jnp.int32).at[interval_of(scores, jnp)].add(jnp.isfinite(scores))


def _interval_sums(state: State) -> dict[str, np.ndarray]:
    return {name: np.add.reduceat(np.asarray(field, np.float64), state.plan.start) for name, field in state.counts.sums.items()}


def _mass_of(intervals: np.ndarray) -> np.ndarray:
    return _mass({"normal": intervals, "defect": np.zeros(INTERVALS), "region": np.zeros(INTERVALS)})


def _mass(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """The error that each interval adds to all curves if it is not cut, `[65536]`."""
    mass = np.zeros(INTERVALS)
    for x_names, y_name in CURVES:
        if y_name in sums:
            x, y = functools.reduce(np.add, (sums[name] for name in x_names)), sums[y_name]
            x, y = x / max(x.sum(), 1e-300), y / max(y.sum(), 1e-300)
            rate = np.cumsum(x[::-1])[::-1] - x / 2
            mass += x * (y + _PRIOR * x) / (rate + _LEAST_RATE)
    return mass
