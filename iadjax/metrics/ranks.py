"""The one sorted pass that every metric is read from.

A metric over thresholds changes only where a positive is passed. So it needs, for each distinct score t of a positive, the
number of positives >= t and the numbers of negatives > t and >= t: exact integers, whatever the number of negatives. The
negatives are sorted alone, without indices, which is several times cheaper than an argsort of everything.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.metrics.inputs import as_binary, as_scores, check_finite, on_accelerator

__all__ = ["Ranks", "device_counts", "rank", "rank_mixed"]


_PART = 1 << 19
_MOST_PARTS = 8


class Ranks(NamedTuple):
    """Counts at the M distinct scores of the positives, in decreasing order; a score equal to the threshold counts.

    Attributes:
      thresholds: `[M]` the scores.
      true: `[M]` int64, positives >= t.
      false: `[M]` int64, negatives >= t.
      false_before: `[M]` int64, negatives > t.
      overlap: `[M]` float64, sum of the weights of the positives >= t.
      positives, negatives: how many there are.
    """

    thresholds: np.ndarray
    true: np.ndarray
    false: np.ndarray
    false_before: np.ndarray
    overlap: np.ndarray
    positives: int
    negatives: int


def rank(positives: np.ndarray, negatives: np.ndarray, weights: np.ndarray | None = None) -> Ranks:
    """Ranks of the scores of positives among those of negatives, on the host.

    Args:
      positives: `[P]` finite floats.
      negatives: `[Q]` finite floats; left in another order.
      weights: `[P]` float64, what each positive adds to `overlap`; None: 1 / P.
    """
    if weights is None:
        order, ascending = None, np.sort(positives)
    else:
        order = np.argsort(positives)
        ascending = positives[order]
    values, starts = _distinct(ascending)
    # counts add up over parts, each of which one core sorts
    parts = np.array_split(negatives, min(os.cpu_count() or 1, _MOST_PARTS, 1 + len(negatives) // _PART))
    with ThreadPoolExecutor(len(parts)) as pool:
        below, upto = (sum(each) for each in zip(*pool.map(lambda part: _count(part, values), parts), strict=True))
    return _assemble(values, starts, below, upto, order, weights, len(positives), len(negatives))


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
    if not on_accelerator(scores):
        scores, labels = as_scores(scores), as_binary(labels)
        return rank(scores[labels], scores[~labels], weights)
    host_labels = None if on_accelerator(labels) else as_binary(labels).ravel()
    labels = jnp.ravel(labels) != 0 if host_labels is None else jnp.asarray(host_labels)
    scores = jnp.ravel(scores)
    scores = scores if scores.dtype in (jnp.float32, jnp.float64) else scores.astype(jnp.float32)
    finite, nan, count = (int(each) for each in jax.device_get(_census(scores, labels)))
    check_finite(finite, nan, scores.size, "scores")
    # rounded up, so that few sizes are compiled
    size = 1 << max(count - 1, 0).bit_length()
    ascending, order, below, upto = (np.asarray(each)[:count] for each in device_counts(scores, labels, size))
    values, starts = _distinct(ascending)
    return _assemble(values, starts, below[starts], upto[starts], order, weights, count, scores.size - count)


@jax.jit
def _census(scores: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    return jnp.sum(jnp.isfinite(scores)), jnp.sum(jnp.isnan(scores)), jnp.sum(labels)


@partial(jax.jit, static_argnames="size")
def device_counts(scores: jax.Array, labels: jax.Array, size: int) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The sort and the counts of `rank` in one jitted program.

    Args:
      scores: `[n]` finite floats.
      labels: `[n]` bool.
      size: at least the number P of positives; static.

    Returns:
      `[size]` each, the first P valid: scores of the positives ascending; their places among the positives; int32 numbers of
      negatives < and <= the score.
    """
    # past every finite score, so that neither the padding nor the other class is counted
    negatives = jnp.sort(jnp.where(labels, jnp.inf, scores))
    (index,) = jnp.nonzero(labels, size=size, fill_value=scores.size)
    positives = scores.at[index].get(mode="fill", fill_value=jnp.inf)
    ascending, order = jax.lax.sort((positives, jnp.arange(size, dtype=jnp.int32)), num_keys=1)
    below = jnp.searchsorted(negatives, ascending, side="left").astype(jnp.int32)
    upto = jnp.searchsorted(negatives, ascending, side="right").astype(jnp.int32)
    return ascending, order, below, upto


def _distinct(ascending: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values of a sorted array and where each begins."""
    first = np.ones(len(ascending), bool)
    np.not_equal(ascending[1:], ascending[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    return ascending[starts], starts


def _assemble(values, starts, below, upto, order, weights, positives: int, negatives: int) -> Ranks:
    true = positives - starts[::-1]
    if weights is None:
        overlap = true / max(positives, 1)
    else:
        descending = np.cumsum(np.asarray(weights, np.float64)[order][::-1])
        overlap = descending[true - 1]
    false, before = negatives - below[::-1].astype(np.int64), negatives - upto[::-1].astype(np.int64)
    return Ranks(values[::-1], true, false, before, overlap, positives, negatives)
