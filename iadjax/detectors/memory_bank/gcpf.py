"""GCPF: "Industrial Image Anomaly Localization Based on Gaussian Clustering of Pretrained Feature" (Wan et al.,
IEEE TIE 2022, doi 10.1109/TIE.2021.3094452).

At each level of a pretrained network, the features of all positions of normal images are clustered into K Gaussians. The score
of a position is its smallest Mahalanobis distance from a Gaussian. The map is the mean over the levels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.clusters import add_by_cluster, differences, outer_products, passed
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.shrinkage import drawn_to_mean
from iadjax.errors import UserError
from iadjax.parallel.axis import all_rows

__all__ = ["Clustering", "Clusters", "Gaussians", "gcpf"]

_BLOCK = 512


class Clusters(NamedTuple):
    """The clusters of one level while they are sought.

    Attributes:
      mean: mu, `[K, D]`.
      factor: W, `[K, D, D]`, so that W^T W is the inverse of Sigma.
      sums: `[K, D + 1]`, over the features x of a cluster in this pass, of (y, 1) with y = x - mu.
      products: `[K, D + 2, D + 2]`, likewise of r r^T with r = (y, 1, |y|^2).
    """

    mean: jax.Array
    factor: jax.Array
    sums: jax.Array
    products: jax.Array


class Clustering(NamedTuple):
    """State while images are seen.

    Attributes:
      seen: int32 scalar; images of this pass, or of one that is over.
      images: `[K]` int32, from which the first centres are taken.
      positions: `[K]` int32 for each level, at which they are taken.
      levels: the clusters of each level.
    """

    seen: jax.Array
    images: jax.Array
    positions: tuple[jax.Array, ...]
    levels: tuple[Clusters, ...]


class Gaussians(NamedTuple):
    """State that predicts: mu `[K, D]` and W `[K, D, D]` of each level."""

    means: tuple[jax.Array, ...]
    factors: tuple[jax.Array, ...]


def gcpf(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    num_clusters: int = 10,
    kmeans_epochs: int = 20,
    gaussian_epochs: int = 5,
    sigma: float = 4.0,
) -> Detector:
    """Builds GCPF.

    Map: Mahalanobis distance of features to the nearest Gaussian, the mean over the levels, smoothed.

    Constants are those of the authors' code. Clustering begins with K random features and is k-means first. Then each feature
    goes to the Gaussian with the smallest Mahalanobis distance, and each Gaussian takes the mean and the covariance of its
    features, drawn to the identity by Ledoit and Wolf's rule. The code repeats either until nothing moves, at most a thousand
    times. Numbers of passes are ours here. So is what happens to a cluster without features: it stays as it is, where the code
    falls back on k-means.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: the levels; each has clusters and a map of its own.
      num_clusters: K of each level. All positions share the clusters.
      kmeans_epochs: passes of k-means.
      gaussian_epochs: passes by Mahalanobis distances, after one by Euclidean ones that gives the first covariances.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: a level with fewer positions
        than clusters.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", num_clusters=num_clusters, kmeans_epochs=kmeans_epochs)
    check_options("[0, inf)", gaussian_epochs=gaussian_epochs, sigma=sigma)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def init(key, frozen, spec):
        del frozen
        first, *keys = jax.random.split(key, 1 + len(layers))
        positions, levels = [], []
        for key, layer, level in zip(keys, layers, spec.features, strict=True):
            _, height, width, depth = level.shape
            if height * width < num_clusters:
                raise UserError(
                    f"detector.num_clusters={num_clusters} is more than the {height * width} positions of {layer}; lower it, "
                    "or take larger images"
                )
            # no two centres have the same position, so that no feature is taken twice
            positions.append(jax.random.choice(key, height * width, (num_clusters,), replace=False).astype(jnp.int32))
            levels.append(_no_clusters(num_clusters, depth))
        fewer = spec.num_images < num_clusters
        images = jax.random.choice(first, spec.num_images, (num_clusters,), replace=fewer).astype(jnp.int32)
        return Clustering(jnp.int32(0), images, tuple(positions), tuple(levels))

    def begin(spec, key, state, frozen, batch):
        del key, frozen
        seen, _ = passed(state.seen, batch.valid, spec.num_images)
        valid = all_rows(batch.valid)
        number = state.seen + jnp.cumsum(valid, dtype=jnp.int32) - 1
        chosen = (valid[:, None] & (number[:, None] == state.images[None])).astype(jnp.float32)
        levels = []
        for clusters, positions, level in zip(state.levels, state.positions, batch.features, strict=True):
            x = all_rows(level.reshape(len(level), -1, level.shape[-1])[:, positions])
            mean = clusters.mean + jnp.einsum("bk,bkd->kd", chosen, x, precision="highest")
            levels.append(Clusters(mean, *clusters[1:]))
        return Clustering(seen, state.images, state.positions, tuple(levels)), {"images": seen}

    def kmeans(spec, key, state, frozen, batch):
        del key, frozen
        seen, done = passed(state.seen, batch.valid, spec.num_images)
        levels, moves = [], jnp.float32(0)
        for clusters, level in zip(state.levels, batch.features, strict=True):
            x = level.reshape(-1, level.shape[-1])
            label = jnp.argmin(ops.squared_distances(x, clusters.mean), axis=1)
            y, label = differences(x, clusters.mean, label, batch.valid)
            rows = jnp.concatenate([y, jnp.ones_like(y[:, :1])], axis=1)
            sums = add_by_cluster(clusters.sums, rows, label, lambda part: jnp.sum(part, axis=0), _BLOCK)
            step = jnp.where(done, sums[:, :-1] / jnp.maximum(sums[:, -1:], 1), 0)
            moves += jnp.sum(jnp.linalg.norm(step, axis=1))
            levels.append(Clusters(clusters.mean + step, clusters.factor, jnp.where(done, 0, sums), clusters.products))
        return Clustering(seen, state.images, state.positions, tuple(levels)), {"moves": moves}

    def assign(spec, key, state, frozen, batch):
        del key, frozen
        seen, _ = passed(state.seen, batch.valid, spec.num_images)
        levels = []
        for clusters, level in zip(state.levels, batch.features, strict=True):
            x = level.reshape(-1, level.shape[-1])
            label = jnp.argmin(_distances(x, clusters.mean, clusters.factor), axis=0)
            y, label = differences(x, clusters.mean, label, batch.valid)
            rows = jnp.concatenate([y, jnp.ones_like(y[:, :1]), jnp.sum(y**2, axis=1, keepdims=True)], axis=1)
            products = add_by_cluster(clusters.products, rows, label, outer_products, _BLOCK)
            levels.append(Clusters(*clusters[:3], products))
        return Clustering(seen, state.images, state.positions, tuple(levels)), {"images": seen}

    def fit_gaussians(spec, key, state, frozen):
        del key, frozen
        if int(state.seen) < spec.num_images:
            return state
        levels = tuple(_fitted(clusters) for clusters in state.levels)
        return Clustering(state.seen, state.images, state.positions, levels)

    def keep(key, state, frozen):
        del key, frozen
        return Gaussians(tuple(each.mean for each in state.levels), tuple(each.factor for each in state.levels))

    def phases(spec):
        def of(function):
            return lambda *arguments: function(spec, *arguments)

        return (
            Phase("centres", of(begin)),
            Phase("kmeans", of(kmeans), epochs=kmeans_epochs),
            Phase(
                "gaussians",
                of(assign),
                keep,
                epochs=1 + gaussian_epochs,
                between=of(fit_gaussians),
                finalized=lambda state: keep(None, state, None),
            ),
        )

    def predict(state, frozen, batch):
        del frozen
        size, maps = batch.image.shape[1:3], jnp.float32(0)
        for level, mean, factor in zip(batch.features, state.means, state.factors, strict=True):
            distance = jnp.min(_distances(level.reshape(-1, level.shape[-1]), mean, factor), axis=0)
            maps += ops.anomaly_map(distance.reshape(level.shape[:3]), size)
        maps /= len(layers)
        maps = ops.gaussian_blur(maps, sigma) if sigma else maps
        return Prediction(maps.max(axis=(1, 2)), maps)

    return Detector(init, phases, predict, embed)


def _no_clusters(number: int, depth: int) -> Clusters:
    """At the origin, with the identity as covariance, without features."""
    factor = jnp.broadcast_to(jnp.eye(depth), (number, depth, depth))
    sums, products = jnp.zeros((number, depth + 1)), jnp.zeros((number, depth + 2, depth + 2))
    return Clusters(jnp.zeros((number, depth)), factor, sums, products)


def _distances(x: jax.Array, mean: jax.Array, factor: jax.Array) -> jax.Array:
    """|W (x - mu)| of features `[N, D]` for every cluster: `[K, N]`."""

    def distance(cluster):
        mu, w = cluster
        return jnp.linalg.norm(jnp.matmul(x - mu[None], w.T, precision="highest"), axis=1)

    return jax.lax.map(distance, (mean, factor))


def _fitted(clusters: Clusters) -> Clusters:
    """The means and covariances of the features of a pass."""
    products = np.asarray(clusters.products, np.float64)
    mean, factor = np.array(clusters.mean, np.float64), np.array(clusters.factor, np.float64)
    depth = mean.shape[1]
    for k, each in enumerate(products):
        if (number := each[depth, depth]) > 0:
            step, raw = each[:depth, depth] / number, each[:depth, :depth]
            square = step @ step
            # |y - step|^4, multiplied out
            fourth = each[-1, -1] - 4 * step @ each[:depth, -1] + 4 * step @ raw @ step
            fourth += 2 * square * each[depth, -1] - 3 * number * square**2
            # sums in float32 are right to five digits or more
            covariance = drawn_to_mean(raw / number - np.outer(step, step), number, fourth, rounding=1e-5)
            mean[k] += step
            factor[k] = np.linalg.inv(np.linalg.cholesky(covariance))
    mean, factor = (jnp.asarray(each, jnp.float32) for each in (mean, factor))
    return Clusters(mean, factor, clusters.sums, jnp.zeros_like(clusters.products))
