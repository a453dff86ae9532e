"""SoftPatch: "Unsupervised Anomaly Detection with Noisy Data" (Jiang et al., NeurIPS 2022, arXiv 2403.14233).

The training images may hold anomalies. At every position of the grid, a patch is compared with those of the other images there.
The patches that deviate most stay out of PatchCore's bank. The deviation of the others weighs the distances to them.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.bank import Bank
from iadjax.detectors.families.memory_bank import memory_bank
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.patch_bank import choose_coreset, nearest_patches, patch_features
from iadjax.errors import UserError, did_you_mean

__all__ = ["softpatch"]

# rows of a position that are no patch of an image
_ABSENT = -1


def softpatch(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3"),
    embedding: str = "unfold",
    patch_size: int = 3,
    pretrain_dimension: int = 1024,
    target_dimension: int = 1024,
    discriminator: str = "lof",
    lof_neighbors: int = 6,
    removed_fraction: float = 0.15,
    soft_weights: bool = True,
    coreset_ratio: float = 0.1,
    projection_eps: float = 0.9,
    squared: bool = True,
    sigma: float = 4.0,
    incremental: bool = False,
) -> Detector:
    """Builds SoftPatch.

    Map: squared Euclidean distance of features times the weight of the nearest patch, smoothed.

    All images must share one alignment, because patches are compared by position. While it is fitted, the state holds the
    patches of all images.

    Args:
      backbone: frozen network phi; its variables are `frozen["backbone"]`.
      layers, embedding, patch_size, pretrain_dimension, target_dimension: of the features, as PatchCore's.
      discriminator: what gives a patch its weight among those at its position (section 3.2). "lof": the local outlier factor,
        about 1 for an inlier. "nearest": 1 + the distance to the nearest one. "gaussian": 1 + the Mahalanobis distance.
      lof_neighbors: k of the local outlier factor; 6 in the paper. The authors' command line loses its 6, so their figures
        have 5.
      removed_fraction: tau, fraction of all patches that stay out of the bank, those with the largest weights; in [0, 1).
      soft_weights: whether a distance is multiplied by the weight of the bank's patch (section 3.3).
      coreset_ratio, projection_eps: of the greedy coreset, as PatchCore's. Weights are computed on such a projection too. No
        removed patch is chosen; in the authors' code the first choice may be one.
      squared: whether distances are squared, as in the authors' code; the paper's formulas are without squares.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.
      incremental: whether the state keeps the patches of all images, so that a fit on further images (`start` of `iadjax.fit`)
        weighs and chooses among all of them.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    if discriminator not in _DISCRIMINATORS:
        known = did_you_mean(discriminator, _DISCRIMINATORS)
        raise UserError(f"detector.discriminator knows no {discriminator!r}; {known}")
    check_options("[1, inf)", lof_neighbors=lof_neighbors)
    check_options("[0, 1)", removed_fraction=removed_fraction)
    check_options("(0, 1]", coreset_ratio=coreset_ratio)
    check_options("(0, 1)", projection_eps=projection_eps)
    check_options("[0, inf)", sigma=sigma)
    embed = patch_features(backbone, layers, embedding, patch_size, pretrain_dimension, target_dimension)

    def choose(key, bank):
        projection_key, coreset_key = jax.random.split(key)
        size = int(bank.rows)
        projected = ops.sparse_random_projection(projection_key, bank.features, projection_eps, size=size)
        weights = patch_weights(projected, by_position(bank), discriminator, lof_neighbors, size)
        kept = np.flatnonzero(weights <= np.quantile(weights, 1 - removed_fraction)).astype(np.int32)
        index = np.asarray(choose_coreset(coreset_key, bank, coreset_ratio, projection_eps, kept, incremental))
        return index, weights[index] if soft_weights else None

    def predict(memory, frozen, batch):
        del frozen
        rows, height, width, _ = batch.features.shape
        distance, nearest = nearest_patches(batch.features, memory.features)
        weighted = (distance**2 if squared else distance) * ops.rows_at(memory.weights[:, None], nearest)[..., 0]
        maps = ops.anomaly_map(weighted.reshape(rows, height, width), batch.image.shape[1:3], sigma)
        return Prediction(weighted.max(axis=1), maps)

    return memory_bank(lambda frozen, batch: batch.features, choose, predict, incremental=incremental, embed=embed)


def by_position(bank: Bank) -> np.ndarray:
    """The rows of a bank at every position, `[P, N]` int32; `_ABSENT` fills up positions with fewer rows."""
    size = int(bank.rows)
    position = np.asarray(jax.jit(ops.rows_at)(bank.origin, np.arange(size, dtype=np.int32)))[:, 1]
    order = np.argsort(position, kind="stable").astype(np.int32)
    counts = np.bincount(position)
    table = np.full((len(counts), counts.max()), _ABSENT, np.int32)
    table[np.arange(counts.max()) < counts[:, None]] = order
    return table[counts > 0]


def patch_weights(features: jax.Array, table: np.ndarray, discriminator: str, k: int, size: int) -> np.ndarray:
    """The weight of each of the first `size` rows of `[R, D]` among those of its position (`by_position`): `[size]`, from 0."""
    found = np.asarray(_at_positions(features, table, discriminator, min(k, max(1, table.shape[1] - 1))))
    weights = np.zeros(size, np.float32)
    weights[table[table != _ABSENT]] = found[table != _ABSENT]
    return weights


@functools.partial(jax.jit, static_argnames=("discriminator", "k"))
def _at_positions(features, table, discriminator, k):
    def one(rows):
        x = ops.rows_at(features, jnp.maximum(rows, 0))
        return _DISCRIMINATORS[discriminator](x, rows != _ABSENT, k)

    return jax.lax.map(one, table)


def _neighbors(x: jax.Array, present: jax.Array, k: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The k nearest others of each of `[N, D]`: distances `[N, k]`, indices, and whether there is such a row."""
    squared = jnp.where(present[None] & ~jnp.eye(len(x), dtype=bool), ops.squared_distances(x, x), jnp.inf)
    values, index = jax.lax.top_k(-squared, min(k, len(x)))
    # from the differences, which do not cancel
    return jnp.linalg.norm(x[:, None] - x[index], axis=-1), index, jnp.isfinite(values)


def _mean(values: jax.Array, real: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(real, values, 0), axis=1) / jnp.maximum(jnp.sum(real, axis=1, dtype=values.dtype), 1)


def local_outlier_factor(x: jax.Array, present: jax.Array, k: int) -> jax.Array:
    """LOF (Breunig et al., SIGMOD 2000) of the rows of `[N, D]` that are `present`; 1 for one that is alone."""
    distance, index, real = _neighbors(x, present, k)
    k_distance = jnp.max(jnp.where(real, distance, 0), axis=1)
    # the distance from which a neighbour sees the row: its own k-distance at least
    density = 1 / (_mean(jnp.maximum(distance, k_distance[index]), real) + 1e-10)
    return jnp.where(real[:, 0], _mean(density[index], real) / density, 1)


def nearest_distance(x: jax.Array, present: jax.Array, k: int) -> jax.Array:
    """1 + the distance to the nearest other row."""
    del k
    distance, _, real = _neighbors(x, present, 1)
    return 1 + jnp.where(real, distance, 0)[:, 0]


def gaussian_distance(x: jax.Array, present: jax.Array, k: int, epsilon: float = 0.01) -> jax.Array:
    """1 + the Mahalanobis distance from the Gaussian of all rows; epsilon I is added to its covariance, as PaDiM does."""
    del k
    number = jnp.sum(present, dtype=x.dtype)
    mean = jnp.sum(jnp.where(present[:, None], x, 0), axis=0, keepdims=True) / number
    delta = jnp.where(present[:, None], x - mean, 0)
    covariance = jnp.matmul(delta.T, delta, precision="highest") / jnp.maximum(number - 1, 1)
    lower = jnp.linalg.cholesky(covariance + epsilon * jnp.eye(x.shape[1]))
    return 1 + jnp.linalg.norm(jax.lax.linalg.triangular_solve(lower, delta.T, left_side=True, lower=True), axis=0)


_DISCRIMINATORS = {"lof": local_outlier_factor, "nearest": nearest_distance, "gaussian": gaussian_distance}
