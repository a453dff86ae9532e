"""Numbers of false alarms (NFA) of regions, by the a contrario theory: what is too unlikely to occur once by chance.

Tailanian et al. (JMIV 2024, section 3.4) test every connected region of every level of a map of squared norms.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

__all__ = ["log10_region_tests", "region_log10_probability"]


def log10_region_tests(sizes: tuple[int, ...]) -> float:
    """log10 of the number of tests: of the connected regions (polyominoes) at all positions of grids of these sizes.

    A grid of N positions counts as N times the sum over r = 1 ... N of a b^r / r, the asymptotic number of polyominoes of r
    cells (Jensen, 2003: a = 0.316915, b = 4.062570).
    """
    logs = []
    for size in sizes:
        r = np.arange(1, size + 1)
        logs.append(math.log(size) + logsumexp(math.log(0.316915) + r * math.log(4.062570) - np.log(r)))
    return float(logsumexp(logs)) / math.log(10)


def region_log10_probability(squared: jax.Array, degrees: int) -> jax.Array:
    """log10 of the probability of the most meaningful region around each position, 0 where there is none.

    A region is a connected component (4 neighbours) of the positions above a level. Its probability is at most p^n: n is
    its size, and p the Chernoff bound of a chi-squared variable at the least value u in it,
    log p = -degrees / 2 (u / degrees - 1 - log(u / degrees)) where u > degrees, else 0.

    Components form a tree, from its leaves, the local maxima, downwards. Along a branch without bifurcation the most meaningful
    component stays. At a bifurcation the union stays if it is at least as meaningful as each of its parts, of which none
    may end in such a bifurcation without a union; otherwise the parts stay.

    Positions are added from the largest value on, and each joins the components next to it. So a map of N positions takes N
    steps over N numbers at most. Fewer where values are below their expectation, which end the search.

    Args:
      squared: `[B, h, w]`, sums of squares of so many independent standard normal variables.
      degrees: their number.

    Returns:
      `[B, h, w]`, at most 0.
    """
    return jax.vmap(functools.partial(_one, degrees=degrees))(squared)


def _one(squared: jax.Array, degrees: int) -> jax.Array:
    height, width = squared.shape
    number = height * width
    order = jnp.argsort(-squared.reshape(-1))
    ratio = jnp.maximum(squared.reshape(-1)[order] / degrees, 1)
    log_p = -(degrees / 2) / math.log(10) * (ratio - 1 - jnp.log(ratio))
    # a frame without labels, so that every position has four neighbours
    place = (order // width + 1) * (width + 2) + order % width + 1
    beside = jnp.array([-1, 1, -width - 2, width + 2])

    def step(carry):
        i, labels, size, best, whole, found = carry
        near = labels[place[i] + beside]
        # each component once
        earlier = (near[:, None] == near[None]) & jnp.tri(4, k=-1, dtype=bool)
        joined = (near >= 0) & ~earlier.any(axis=1)
        total = 1 + jnp.sum(jnp.where(joined, size[near], 0))
        least = jnp.min(jnp.where(joined, best[near], 0))
        value = total * log_p[i]
        all_whole = jnp.all(~joined | whole[near])
        taken = all_whole & (value <= least)
        member = (joined[:, None] & (labels[None] == near[:, None])).any(axis=0) | (jnp.arange(len(labels)) == place[i])
        # a bifurcation whose union does not stay ends the tree there
        still = taken | (all_whole & (jnp.sum(joined) < 2))
        return (
            i + 1,
            jnp.where(member, i, labels),
            size.at[i].set(total),
            best.at[i].set(jnp.where(taken, value, least)),
            whole.at[i].set(still),
            jnp.where(member & taken, value, found),
        )

    framed = (height + 2) * (width + 2)
    start = (
        jnp.int32(0),
        jnp.full(framed, -1, jnp.int32),
        jnp.zeros(number, squared.dtype),
        jnp.zeros(number, squared.dtype),
        jnp.zeros(number, bool),
        jnp.zeros(framed, squared.dtype),
    )
    above = jnp.sum(ratio > 1, dtype=jnp.int32)
    found = jax.lax.while_loop(lambda carry: carry[0] < above, step, start)[-1]
    return found.reshape(height + 2, width + 2)[1:-1, 1:-1]
