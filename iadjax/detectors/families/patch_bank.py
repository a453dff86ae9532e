"""Features of patches and their distances to a bank: what PatchCore and the detectors after it share."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops, progress
from iadjax.backbones import Backbone
from iadjax.detector import Prediction
from iadjax.detectors.families.bank import Bank
from iadjax.detectors.families.memory_bank import coreset
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.errors import UserError

__all__ = [
    "choose_coreset",
    "inner_rows",
    "nearest_patches",
    "neighborhood_weight",
    "patch_features",
    "patch_prediction",
    "position_histogram",
    "say_small",
]


def patch_features(
    backbone: Backbone,
    layers: Sequence[str],
    embedding: str,
    patch_size: int,
    pretrain_dimension: int,
    target_dimension: int,
) -> Callable:
    """`Detector.embed` that makes the locally aware patch features of PatchCore (Roth et al., 2022, section 3.1).

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: the levels; the grid of the first one is the grid of the patches.
      embedding, patch_size, pretrain_dimension, target_dimension: see `patchcore`.

    Raises:
      UserError: an option out of its range.
    """
    if embedding not in ("pool", "unfold"):
        raise UserError(f"detector.embedding must be 'pool' or 'unfold', got {embedding!r}")
    check_options("[1, inf)", pretrain_dimension=pretrain_dimension, target_dimension=target_dimension)
    check_odd(patch_size=patch_size)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        if embedding == "pool":
            return ops.concatenate_levels([ops.average_pool(level, patch_size) for level in levels])
        return ops.patch_embedding(levels, patch_size, pretrain_dimension, target_dimension)

    return embed


def choose_coreset(
    key: jax.Array, bank: Bank, ratio: float, eps: float, kept: np.ndarray | None = None, from_mean: bool = False
) -> np.ndarray | jax.Array:
    """Indices of a greedy k-centre coreset of a bank.

    Args:
      key: PRNG key.
      bank: with at least one row.
      ratio: fraction of the patches seen, in (0, 1].
      eps: distortion of the random projection on which it is chosen.
      kept: sorted indices of the rows that may be chosen; all by default.
      from_mean: see `coreset`.

    Returns:
      `[M]` int32; all that may be chosen, in their order, if there are no more.
    """
    size = int(bank.rows) if kept is None else len(kept)
    number = min(size, max(1, int(int(bank.count) * int(bank.patches) * ratio)))
    if number == size:
        return np.arange(size, dtype=np.int32) if kept is None else kept
    if kept is None:
        return coreset(key, bank.features, number, size, eps, from_mean=from_mean)
    return kept[np.asarray(coreset(key, ops.take_rows(bank.features, kept), number, size, eps, from_mean=from_mean))]


def nearest_patches(features: jax.Array, bank: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Distance of every patch `[B, h, w, D]` to its nearest row of a bank, and the index of that row: `[B, h * w]` each."""
    distance, nearest = ops.nearest_neighbors(features.reshape(-1, features.shape[-1]), bank, 1)
    return distance.reshape(len(features), -1), nearest.reshape(len(features), -1)


def patch_prediction(
    features: jax.Array, bank: jax.Array, size: tuple[int, int], reweight: bool, num_neighbors: int, sigma: float
) -> Prediction:
    """PatchCore's scores and maps (section 3.3).

    Args:
      features: `[B, h, w, D]` of the patches.
      bank: `[M, D]`.
      size: (height, width) of the map.
      reweight: whether the score of an image is weighted by eq. 7.
      num_neighbors: b of eq. 7.
      sigma: of the Gaussian that smooths the map.
    """
    rows, height, width, _ = features.shape
    distance, nearest = nearest_patches(features, bank)
    # eq. 6: the patch that is farthest from M, s* = ||m_test - m*||
    worst = jnp.argmax(distance, axis=1)[:, None]
    score = jnp.take_along_axis(distance, worst, axis=1)[:, 0]
    if reweight:
        score = score * neighborhood_weight(features, worst, nearest, score, bank, num_neighbors)
    # bilinear, then smoothed: section 3.3
    return Prediction(score, ops.anomaly_map(distance.reshape(rows, height, width), size, sigma))


def neighborhood_weight(
    features: jax.Array, worst: jax.Array, nearest: jax.Array, score: jax.Array, bank: jax.Array, number: int
) -> jax.Array:
    """PatchCore's eq. 7, `[B]`: w = 1 - exp(s*) / sum over N_b(m*) of exp(||m_test - m||).

    Args:
      features: `[B, h, w, D]`.
      worst: `[B, 1]`, the patch m_test of each image.
      nearest: `[B, P]`, the rows of the bank nearest to the patches, m* among them.
      score: `[B]`, s*, the distance of m_test from m*.
      bank: `[M, D]`.
      number: b; N_b(m*) contains m* itself. Among one patch there is no neighbourhood: the weight is 1.
    """
    number = min(number, len(bank))
    if number == 1:
        return jnp.ones_like(score)
    rows, *_, depth = features.shape
    test_patch = jnp.take_along_axis(features.reshape(rows, -1, depth), worst[..., None], axis=1)
    nearest_patch = ops.rows_at(bank, jnp.take_along_axis(nearest, worst, axis=1)[:, 0])
    _, neighbors = ops.nearest_neighbors(nearest_patch, bank, number)
    to_neighbors = jnp.linalg.norm(test_patch - ops.rows_at(bank, neighbors), axis=-1)
    # in the stable form of a softmax
    return 1 - jnp.exp(score - jax.nn.logsumexp(jnp.concatenate([score[:, None], to_neighbors[:, 1:]], 1), axis=1))


def say_small(number: int, num_neighbors: int) -> None:
    """A line where a bank of `number` patches has no full neighbourhood of eq. 7."""
    if number < num_neighbors:
        progress.say(
            f"the bank holds {number} patches, fewer than detector.num_neighbors={num_neighbors}: scores are weighted by "
            "all of them" + (", so not at all" if number == 1 else "") + "; more images or a larger coreset_ratio help"
        )


def inner_rows(bank: Bank, grid: tuple[int, int], border: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices `[N]` int32 of the rows of patches at least `border` away from the ends of a grid, and their positions."""
    position = np.asarray(ops.rows_at(bank.origin, np.arange(int(bank.rows), dtype=np.int32)))[:, 1]
    row, column = position // grid[1], position % grid[1]
    kept = (np.minimum(row, column) >= border) & (row < grid[0] - border) & (column < grid[1] - border)
    return np.flatnonzero(kept).astype(np.int32), position[kept]


def position_histogram(counts: np.ndarray, reach: int) -> np.ndarray:
    """Counts `[h, w, M]` of rows by position to probabilities of the rows, each position with those at most `reach` away."""
    for axis in (0, 1):
        ends = np.arange(counts.shape[axis])
        total = np.cumsum(np.insert(counts, 0, 0, axis=axis), axis=axis)
        last, first = np.minimum(ends + reach + 1, len(ends)), np.maximum(ends - reach, 0)
        counts = np.take(total, last, axis=axis) - np.take(total, first, axis=axis)
    return counts / np.maximum(counts.sum(axis=2, keepdims=True), 1)
