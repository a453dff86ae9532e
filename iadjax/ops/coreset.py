"""Greedy k-centre coresets: the picks of the plain loop, computed by matrix products."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from iadjax.errors import UserError
from iadjax.ops.rows import rows_at
from iadjax.parallel.axis import AXIS, num_shards

__all__ = ["johnson_lindenstrauss_dimension", "k_center_greedy", "sparse_random_projection"]

_BLOCK = 65536
_BUCKETS = (1, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 448, 512)


def k_center_greedy(
    features: jax.Array,
    num_centers: int,
    start: int = 0,
    *,
    candidates: int = 512,
    progress: Callable[[int, int], None] | None = None,
    size: int | None = None,
) -> jax.Array:
    """Greedy 2-approximation of the k-centre problem (Gonzalez 1985): each pick is the point farthest from all picks so far.

    Exact: the same picks in the same order as the loop that makes one pick and then updates every distance. A pass takes the m
    points farthest from the centres and computes their m x m distances. It picks greedily among them while the best candidate
    is at least as far as the (m+1)-th point was. No other point can be farther than that. One matrix product then updates all
    points for the whole group. Memory beside the features: O(N + m^2 + 65536 m), never N x N.

    With a mesh (`placement.use`), every device updates the distances of its own points. The m farthest of all are found among
    the m farthest of each device. The picks are the same.

    Args:
      features: `[N, D]` float32 (or float64 with x64 enabled).
      num_centers: how many, from 1 to N.
      start: index of the first pick.
      candidates: m; changes the speed, not the result.
      progress: called as `progress(done, num_centers)` after every pass.
      size: the number of rows that are points; the rows after them are never picked. All by default.

    Returns:
      indices `[num_centers]` int32 in the order of picking; of equal distances the lower index is picked first.

    Raises:
      UserError: num_centers or start out of range.
    """
    size = features.shape[0] if size is None else size
    if not 1 <= num_centers <= size:
        raise UserError(f"num_centers must be from 1 to the {size} points, got {num_centers}")
    if not 0 <= start < size:
        raise UserError(f"start must be from 0 to {size - 1}, got {start}")
    m = min(candidates, _BUCKETS[-1])
    points, squares, distances = _prepare(features, size, m)
    # each size is a program: an accelerator multiplies 512 columns as fast as few, and compiles for seconds
    buckets = _BUCKETS if jax.default_backend() == "cpu" else _BUCKETS[-1:]
    picks = [np.array([start], np.int32)]
    done = 1
    while done < num_centers:
        bucket = next(size for size in buckets if size >= len(picks[-1]))
        group = np.pad(picks[-1], (0, bucket - len(picks[-1])))
        distances, *farthest = _update(points, squares, distances, group, len(picks[-1]), m)
        index, distance, among, bound = jax.device_get(farthest)
        picks.append(_pick(index, distance, among, bound, num_centers - done))
        done += len(picks[-1])
        if progress is not None:
            progress(done, num_centers)
    return jnp.asarray(np.concatenate(picks))


def _pick(index: np.ndarray, distance: np.ndarray, among: np.ndarray, bound: float, limit: int) -> np.ndarray:
    """Greedy picks among the m farthest points, which are sorted by index so that the first maximum is the lower one.

    On the host: hundreds of dependent steps on a few hundred numbers.
    """
    current = distance.copy()
    picked: list[int] = []
    while len(picked) < min(limit, len(index)):
        best = int(current.argmax())
        value = current[best]
        # a point outside may be as far as the bound; it has the higher index than a candidate that was so from the start
        safe = value > bound or (value == bound and distance[best] == bound)
        if picked and (not safe or value < 0):
            break
        np.minimum(current, among[best], out=current)
        current[best] = -1
        picked.append(best)
    return index[picked]


@functools.partial(jax.jit, static_argnames="m")
def _prepare(features, size, m):
    """The points, centred and padded; their squares; their distances to no centre yet."""
    real = jnp.arange(len(features)) < size
    features = jnp.where(real[:, None], features, 0)
    # centred, so that less cancels; on a point of a coarse binary grid, so that small integers stay exact and ties stay ties
    grid = jnp.exp2(jnp.ceil(jnp.log2(jnp.maximum(jnp.max(jnp.abs(features)), jnp.finfo(features.dtype).tiny))) - 6)
    points = features - grid * jnp.round(jnp.sum(features, axis=0, keepdims=True) / size / grid)
    missing = max(0, m + 1 - len(points))
    missing += -(len(points) + missing) % num_shards()
    points = jnp.pad(points, [(0, missing), (0, 0)])
    # padding counts as picked: -1 never wins
    distances = jnp.where(jnp.pad(real, (0, missing)), jnp.inf, -1.0).astype(points.dtype)
    return _split(points), jnp.sum(points**2, axis=1), _split(distances)


def _split(array):
    """The array split over the devices by rows."""
    return array if num_shards() == 1 else jax.lax.with_sharding_constraint(array, P(AXIS))


def _snap(squared, scale):
    """Squared distances with what rounding leaves between equal points, a few ulp of |x|^2 + |c|^2, set to zero."""
    return jnp.where(squared <= 16 * jnp.finfo(squared.dtype).eps * scale, 0, squared)


@functools.partial(jax.jit, static_argnames="m", donate_argnums=2)
def _update(points, squares, distances, group, count, m):
    """Makes the first `count` of `group` centres.

    Returns:
      The squared distances of all points to their nearest centre (-1 for centres), and of the m farthest points: indices
      `[m]`, squared distances `[m]`, those among them `[m, m]`, and that of the (m+1)-th.
    """
    meant = jnp.arange(len(group)) < count
    norms = jnp.where(meant, rows_at(squares[:, None], group)[:, 0], jnp.inf)
    groups = rows_at(points, group), norms, jnp.where(meant, group, len(points))
    if num_shards() == 1:
        distances, *farthest = _nearest_center(points, squares, distances, *groups, 0, m)
        # the barrier: XLA:CPU has a fast top-k, and loses it when the slice below is moved into it
        values, order = jax.lax.optimization_barrier(farthest)
    else:

        def local(points, squares, distances, *groups):
            first = len(points) * jax.lax.axis_index(AXIS)
            distances, *farthest = _nearest_center(points, squares, distances, *groups, first, m)
            # in the order of the devices, so that of equal values the lower index comes first here too
            values, order = (jax.lax.all_gather(x, AXIS, tiled=True) for x in farthest)
            best = jax.lax.top_k(values, m + 1)
            return distances, best[0], order[best[1]]

        specs = (P(AXIS), P(AXIS), P(AXIS), P(), P(), P())
        out = (P(AXIS), P(), P())
        distances, values, order = jax.shard_map(local, in_specs=specs, out_specs=out, check_vma=False)(
            points, squares, distances, *groups
        )
    index = jnp.sort(order[:m])
    chosen, squares = rows_at(points, index), rows_at(squares[:, None], index)[:, 0]
    sums = squares[None] + squares[:, None]
    among = _snap(sums - 2 * jnp.matmul(chosen, chosen.T, precision="highest"), sums)
    return distances, index, rows_at(distances[:, None], index)[:, 0], among, values[m]


def _nearest_center(points, squares, distances, centers, norms, slots, first, m):
    """Distances with more centers, and the m + 1 largest with their indices; of a part of the points that begins at `first`.

    `slots` are the indices of the centers among all points.
    """
    parts = []
    # unrolled: inside a loop of XLA's the products would run on one core of a CPU
    for begin in range(0, len(points), _BLOCK):
        rows = points[begin : begin + _BLOCK]
        square = squares[begin : begin + _BLOCK]
        nearest = square + jnp.min(norms[None] - 2 * jnp.matmul(rows, centers.T, precision="highest"), axis=1)
        parts.append(jnp.minimum(distances[begin : begin + _BLOCK], _snap(nearest, 2 * square)))
    slots = jnp.where(slots < first, len(points), slots - first)
    distances = jnp.concatenate(parts).at[slots].set(-1, mode="drop")
    values, order = jax.lax.top_k(distances, min(m + 1, len(points)))
    return distances, values, order + first


def johnson_lindenstrauss_dimension(size: int, eps: float) -> int:
    """4 ln(N) / (eps^2 / 2 - eps^3 / 3): dimensions that keep the squared distances of N points within 1 +- eps.

    Source: Dasgupta & Gupta, Random Structures & Algorithms 2003.
    """
    return int(4 * np.log(size) / (eps**2 / 2 - eps**3 / 3))


def sparse_random_projection(key: jax.Array, features: jax.Array, eps: float = 0.9, *, size: int | None = None) -> jax.Array:
    """A sparse Johnson-Lindenstrauss projection (Li, Hastie & Church, KDD 2006), density 1 / sqrt(D).

    Args:
      key: PRNG key.
      features: `[N, D]` float32.
      eps: distortion of squared distances, in (0, 1).
      size: the number of rows that are points, which d depends on; all by default.

    Returns:
      `[N, d]` float32, d from `johnson_lindenstrauss_dimension`; the features themselves if d is not below D.
    """
    number, depth = features.shape
    dimension = johnson_lindenstrauss_dimension(number if size is None else size, eps)
    if not 0 < dimension < depth:
        return features
    density = 1 / np.sqrt(depth)
    uniform = jax.random.uniform(key, (depth, dimension))
    signs = jnp.where(uniform < density / 2, -1.0, jnp.where(uniform < density, 1.0, 0.0))
    matrix = (signs / np.sqrt(density * dimension)).astype(features.dtype)
    return jnp.matmul(features, matrix, precision="highest")
