"""One sort of the scores, which serves every metric.

A metric over thresholds needs three exact counts at each score t of a positive: the positives >= t, the negatives > t and the
negatives >= t. On the host, negatives are sorted alone, in parts, without indices. That is several times cheaper than an
argsort of everything. On an accelerator, one compiled function of fixed shapes makes the same counts, and they stay there.
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.metrics.inputs import as_flat
from iadjax.metrics.overlap import ramp_area, real, total

__all__ = ["Ranks", "apply", "device_rank", "overlap_area", "padded_size", "rank", "rank_labelled", "rank_mixed"]

_PART = 1 << 19
_MOST_PARTS = 8


class Ranks(NamedTuple):
    """Counts at the scores of the positives, in decreasing order; a score equal to the threshold counts.

    On the host there is one entry for each distinct score. On a device there is one for each positive, the same for tied ones,
    and then padding of count 0 and weight 0.

    Attributes:
      thresholds: `[M]` the scores.
      count: `[M]` int, positives of this entry.
      weight: `[M]` float, the sum of their weights.
      true: `[M]` int, positives >= t.
      false: `[M]` int, negatives >= t.
      false_before: `[M]` int, negatives > t.
      positives, negatives: how many there are.
    """

    thresholds: Any
    count: Any
    weight: Any
    true: Any
    false: Any
    false_before: Any
    positives: Any
    negatives: Any


def apply(formula: Callable, ranks: Ranks, *rest: float) -> Any:
    """`formula(ranks, *rest)` as Python floats. It is compiled if the ranks are on a device; only results leave the device."""
    if isinstance(ranks.thresholds, jax.Array):
        return jax.tree.map(float, jax.device_get(_jitted(formula, ranks, *rest)))
    return jax.tree.map(float, formula(ranks, *rest))


@partial(jax.jit, static_argnums=0)
def _jitted(formula: Callable, ranks: Ranks, *rest: float) -> Any:
    return formula(ranks, *rest)


def overlap_area(ranks: Ranks, limit: float) -> Any:
    """Area under the summed weights of the positives >= t over the false positive rate, to a limit and divided by it."""
    before, at = (real(each) / ranks.negatives for each in (ranks.false_before, ranks.false))
    return total(ranks.weight * ramp_area(before, at, limit))


def rank(positives: np.ndarray, negatives: np.ndarray, weights: np.ndarray | None = None) -> Ranks:
    """Ranks of the scores of positives among those of negatives, on the host.

    Args:
      positives: `[P]` finite floats.
      negatives: `[Q]` finite floats; sorted in place.
      weights: `[P]` float64; None: 1 / P.
    """
    if weights is None:
        order, ascending = None, np.sort(positives)
    else:
        order = np.argsort(positives)
        ascending = positives[order]
    first = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    values = ascending[starts]
    # counts add up over parts, each of which one core sorts
    parts = np.array_split(negatives, min(os.cpu_count() or 1, _MOST_PARTS, 1 + len(negatives) // _PART))
    with ThreadPoolExecutor(len(parts)) as pool:
        below, upto = (
            functools.reduce(np.add, each) for each in zip(*pool.map(lambda part: _count(part, values), parts), strict=True)
        )
    size, rest = len(positives), len(negatives)
    count = np.diff(starts, append=size)[::-1]
    if weights is None:
        weight = count / max(size, 1)
    else:
        weight = np.add.reduceat(np.asarray(weights, np.float64)[order], starts)[::-1] if size else np.zeros(0)
    true = size - starts[::-1]
    return Ranks(values[::-1], count, weight, true, rest - below[::-1], rest - upto[::-1], size, rest)


def _count(negatives: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of negatives < and <= each of the ascending values."""
    negatives.sort()
    below = np.searchsorted(negatives, values)
    upto = below.copy()
    # most scores are tied with none
    tied = np.flatnonzero(negatives[np.minimum(below, len(negatives) - 1)] == values) if len(negatives) else below[:0]
    upto[tied] = np.searchsorted(negatives, values[tied], side="right")
    return below, upto


def rank_mixed(scores: Any, labels: Any, weights: np.ndarray | None = None) -> Ranks:
    """Ranks from scores and labels of one shape; on the accelerator where `scores` lives on one.

    `weights` belong to the positives in C order.
    """
    scores, labels = as_flat(scores, labels)
    if not isinstance(scores, jax.Array):
        return rank(scores[labels], scores[~labels], weights)
    count = int(labels.sum())
    size = padded_size(count)
    if weights is not None:
        weights = np.pad(weights, (0, size - count))
    ranks = rank_labelled(scores, labels, weights, size)
    return ranks._replace(positives=count, negatives=scores.size - count)


def padded_size(count: int) -> int:
    """Rounded up to a power of two, so that few shapes are compiled."""
    return 1 << max(count - 1, 0).bit_length()


@partial(jax.jit, static_argnames="size")
def rank_labelled(scores: jax.Array, labels: jax.Array, weights: jax.Array | None = None, size: int | None = None) -> Ranks:
    """Ranks by one compiled function of fixed shapes; also for use inside another `jax.jit`.

    Args:
      scores: `[n]` finite floats.
      labels: `[n]` bool.
      weights: `[size]` float, of the positives in C order, then padding of any value; None: 1 / P.
      size: at least the number of positives; static; None: n.
    """
    (index,) = jnp.nonzero(labels, size=scores.size if size is None else size, fill_value=scores.size)
    positives = scores.at[index].get(mode="fill", fill_value=-jnp.inf)
    return device_rank(positives, weights, jnp.where(labels, -jnp.inf, scores), jnp.sum(~labels))


def device_rank(positives: jax.Array, weights: jax.Array | None, negatives: jax.Array, num_negatives: Any) -> Ranks:
    """Ranks of positives among negatives, both padded with -inf; a pure function of fixed shapes.

    Args:
      positives: `[P]` floats.
      weights: `[P]` floats, ignored at the padding; None: 1 over the number of positives.
      negatives: `[n]` floats.
      num_negatives: how many of them are no padding.
    """
    order = jnp.argsort(positives, descending=True)
    thresholds, valid = positives[order], jnp.isfinite(positives[order])
    count = valid.astype(jnp.int32)
    # padding lies below every score, so that none of it is counted
    false, before = (_at_least(jnp.sort(negatives), thresholds, side) for side in ("left", "right"))
    found = jnp.sum(count)
    weight = real(count) / jnp.maximum(found, 1) if weights is None else jnp.where(valid, real(jnp.asarray(weights))[order], 0)
    true = _at_least(thresholds[::-1], thresholds, "left")
    return Ranks(thresholds, count, weight, true, false, before, found, num_negatives)


def _at_least(ascending: jax.Array, thresholds: jax.Array, side: str) -> jax.Array:
    return (ascending.size - jnp.searchsorted(ascending, thresholds, side=side)).astype(jnp.int32)
