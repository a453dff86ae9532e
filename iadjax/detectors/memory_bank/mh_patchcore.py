"""MH-PatchCore: "Mahalanobis PatchCore: Covariance-Aware and Streaming-Compatible Industrial Anomaly Detection"
(Ferrari et al., 2026, arXiv 2605.27748).

PatchCore in a whitened subspace. The subspace comes from streamed moments. The bank is a coreset of coresets, so that memory
does not grow with the number of images.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gaussian import init_moments
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.subspace import add_vectors, components_for, covariance_of, principal_axes
from iadjax.parallel.axis import all_rows

__all__ = ["Filling", "Whitened", "farthest_first", "mh_patchcore"]


class Filling(NamedTuple):
    """The bank while it fills, as a binary counter of coresets: level i stands for 2^i blocks.

    Attributes:
      mean: `[D]`.
      whitening: `[D, k]`, W.
      block: `[R, k]`, whitened patches of the block that fills.
      rows: int32 scalar; how many rows of it hold patches.
      levels: `[L, M, k]`, coresets.
      sizes: `[L]` int32; how many rows of each hold patches, 0 for a level that is empty.
    """

    mean: jax.Array
    whitening: jax.Array
    block: jax.Array
    rows: jax.Array
    levels: jax.Array
    sizes: jax.Array


class Whitened(NamedTuple):
    """What predicts.

    Attributes:
      mean: `[D]`.
      whitening: `[D, k]`, W: the Euclidean distance of W^T (x - mean) is the Mahalanobis distance.
      bank: `[M, k]`.
    """

    mean: jax.Array
    whitening: jax.Array
    bank: jax.Array


def mh_patchcore(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3"),
    patch_size: int = 3,
    pretrain_dimension: int = 1024,
    target_dimension: int = 1024,
    variance: float = 0.99,
    shrinkage: float = 0.07,
    bank_size: int = 1000,
    local_size: int = 256,
    block_images: int = 32,
    num_neighbors: int = 9,
    sigma: float = 4.0,
) -> Detector:
    """Builds MH-PatchCore.

    Map: squared Mahalanobis distance of features, smoothed.

    The authors make three passes: PCA, covariance of the projections, bank. The covariance of projections on principal axes is
    the diagonal of their variances, so here the second pass is none.

    Args:
      backbone: frozen network; Wide ResNet-50-2 in the paper.
      layers, patch_size, pretrain_dimension, target_dimension: of the patches, as in PatchCore's "unfold"; patch_size is odd.
      variance: fraction of the variance that the principal axes keep, in (0, 1].
      shrinkage: how far the covariance is drawn to its mean variance, in [0, 1].
      bank_size: patches that the bank holds at most.
      local_size: patches of each coreset before the last one.
      block_images: images whose patches are thinned together; a batch in anomalib. The bank does not depend on batches here.
      num_neighbors: b of PatchCore's eq. 7, with squared distances; 1 = scores are not weighted.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", pretrain_dimension=pretrain_dimension, target_dimension=target_dimension, bank_size=bank_size)
    check_options("[1, inf)", local_size=local_size, block_images=block_images, num_neighbors=num_neighbors)
    check_options("(0, 1]", variance=variance)
    check_options("[0, 1]", shrinkage=shrinkage)
    check_options("[0, inf)", sigma=sigma)
    check_odd(patch_size=patch_size)
    reduced = min(local_size, bank_size)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        return ops.patch_embedding(levels, patch_size, pretrain_dimension, target_dimension)

    def whiten(state, x):
        return jnp.matmul(x - ops.per_channel(state.mean, x), state.whitening, precision="highest")

    def init(key, frozen, spec):
        del key, frozen
        return init_moments((), 1, target_dimension)

    def observe(key, state, frozen, batch):
        del key, frozen
        state = add_vectors(state, batch.features, batch.valid)
        return state, {"patches": state.count}

    def add(key, state, frozen, batch):
        del key, frozen
        z, valid = all_rows((whiten(state, batch.features), batch.valid))
        z = z.reshape(len(z), -1, z.shape[-1])
        slots = state.rows + (jnp.cumsum(valid, dtype=jnp.int32) - 1) * z.shape[1]
        block = ops.write_rows(state.block, z, jnp.where(valid, slots, len(state.block)))
        rows = state.rows + jnp.sum(valid, dtype=jnp.int32) * z.shape[1]
        return Filling(state.mean, state.whitening, block, rows, state.levels, state.sizes), {"block_rows": rows}

    def thinned(state, size):
        """The first `size` rows of the block as a coreset, carried through the levels."""
        levels, sizes = np.array(state.levels), np.array(state.sizes)
        candidate = np.asarray(farthest_first(state.block, reduced, size))
        level = 0
        while sizes[level]:
            merged = np.concatenate([levels[level, : sizes[level]], candidate])
            candidate, sizes[level] = np.asarray(farthest_first(merged, reduced)), 0
            level += 1
        levels[level, : len(candidate)], sizes[level] = candidate, len(candidate)
        rows = int(state.rows) - size
        block = jnp.roll(state.block, -size, axis=0)
        return Filling(state.mean, state.whitening, block, jnp.int32(rows), jnp.asarray(levels), jnp.asarray(sizes))

    def phases(spec):
        _, height, width, _ = spec.features.shape
        full = min(block_images, spec.num_images) * height * width
        # a batch may come to a block that lacks one image
        capacity = full + (spec.batch_size - 1) * height * width
        number = max(1, -(-spec.num_images // block_images)).bit_length() + 1

        def factorize(key, state, frozen):
            del key, frozen
            variances, axes = principal_axes(covariance_of(state))
            k = components_for(variances, variance)
            progress.say(f"{k} of {len(variances)} principal axes have {variance:g} of the variance")
            # (1 - s) Sigma + s tr(Sigma) / k I, which is diagonal on these axes
            kept = (1 - shrinkage) * variances[:k] + shrinkage * variances[:k].mean()
            whitening = axes[:, :k] / np.sqrt(np.maximum(kept, 1e-8 * max(variances[:k].mean(), 1e-12)))
            shapes = jnp.zeros((capacity, k)), jnp.int32(0), jnp.zeros((number, reduced, k)), jnp.zeros(number, jnp.int32)
            return Filling(state.mean[0], jnp.asarray(whitening, jnp.float32), *shapes)

        def between(key, state, frozen):
            del key, frozen
            while int(state.rows) >= full:
                state = thinned(state, full)
            return state

        def finish(key, state, frozen):
            del key, frozen
            if int(state.rows):
                state = thinned(state, int(state.rows))
            parts = [level[:size] for level, size in zip(np.asarray(state.levels), np.asarray(state.sizes), strict=True)]
            return Whitened(state.mean, state.whitening, farthest_first(np.concatenate(parts), bank_size))

        return (
            Phase("moments", observe, factorize, finalized=lambda state: Filling(*(state.mean,) * 6)),
            Phase("bank", add, finish, between=between, finalized=lambda state: Whitened(*state[:3])),
        )

    def predict(state, frozen, batch):
        del frozen
        z, bank = whiten(state, batch.features), state.bank
        rows, height, width, depth = z.shape
        z = z.reshape(rows, -1, depth)
        distance, nearest = ops.nearest_neighbors(z.reshape(-1, depth), bank, 1)
        distance, nearest = distance.reshape(rows, -1) ** 2, nearest.reshape(rows, -1)
        worst = jnp.argmax(distance, axis=1)[:, None]
        score = jnp.take_along_axis(distance, worst, axis=1)[:, 0]
        number = min(num_neighbors, len(bank))
        if number > 1:
            patch = jnp.take_along_axis(z, worst[..., None], axis=1)
            _, support = ops.nearest_neighbors(bank[jnp.take_along_axis(nearest, worst, axis=1)[:, 0]], bank, number)
            to_support = jnp.sum((patch - bank[support]) ** 2, axis=-1)
            score = score * jnp.clip(1 - jnp.exp(score - jax.nn.logsumexp(to_support, axis=1)), 0, 1)
        maps = ops.anomaly_map(distance.reshape(rows, height, width), batch.image.shape[1:3], sigma)
        return Prediction(score, maps)

    return Detector(init, phases, predict, embed)


def farthest_first(points: jax.Array | np.ndarray, number: int, size: int | None = None) -> jax.Array:
    """A greedy k-centre coreset of the first `size` rows of `[N, k]` that begins with the row farthest from their mean.

    Returns:
      `[min(number, size), k]`; all rows in their order if there are no more.
    """
    size = len(points) if size is None else size
    points = jnp.asarray(points)
    if number >= size:
        return points[:size]
    mean = jnp.sum(jnp.where((jnp.arange(len(points)) < size)[:, None], points, 0), axis=0, keepdims=True) / size
    start = int(jnp.argmax(jnp.linalg.norm(points[:size] - mean, axis=1)))
    return points[ops.k_center_greedy(points, number, start, size=size)]
