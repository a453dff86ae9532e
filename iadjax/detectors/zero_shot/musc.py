"""MuSc: "Zero-Shot Industrial Anomaly Classification and Segmentation with Mutual Scoring of the Unlabeled Images"
(Li et al., ICLR 2024, arXiv 2401.16753).

The unlabelled test images score each other. A normal patch has similar patches in many other images, an anomalous one in few.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gallery import add_to_gallery, described, init_gallery
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.errors import UserError

__all__ = ["Mutual", "musc", "rescore"]

_IMAGES = 8


class Mutual(NamedTuple):
    """What predicts.

    Attributes:
      levels: tokens of each layer, normalised over the whole image, `[N, h, w, C]`.
      descriptors: of whole images, `[N, E]`.
      distances: what the images found of each other, `[N, h, w]`.
      largest: of each image's map, `[N]`.
      score: of each image, `[N]`.
    """

    levels: tuple[jax.Array, ...]
    descriptors: jax.Array
    distances: jax.Array
    largest: jax.Array
    score: jax.Array


def musc(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("block6", "block12", "block18", "block24"),
    class_layer: str = "embedding",
    normalize_class: bool = True,
    degrees: Sequence[int] = (1, 3, 5),
    lowest: float = 0.3,
    neighbors: Sequence[int] = (1, 2, 3),
) -> Detector:
    """Builds MuSc, which is fitted on the unlabelled test images (protocol "zero_shot" with `test_batch`).

    Map: mean distance of unit patch features to their nearest ones in the most similar images, in [0, 2].

    An image of the batch is scored by all others: its own patches are left out. It is recognised by its position in the split
    and its descriptor. What it got when all images were compared is kept, so no second pass is made. An image that was not
    in the batch is compared with all of them, and its score rests on its neighbours in the batch. The state holds the tokens
    of all images, on every device: 1.9 GB for 83 images of 518 pixels with four layers of ViT-L/14.

    Args:
      backbone: frozen network; CLIP ViT-L/14 at 336 in the paper.
      layers: the patch tokens of the stages; the default are the authors' four of 24 blocks, without the last norm.
      class_layer: the descriptor of an image: "embedding" is CLIP's projected class token, "class" that of other networks.
        A layer of patches is averaged over its positions, for networks without a class token.
      normalize_class: whether descriptors are unit vectors, as those of CLIP are in the authors' code; those of DINO are not.
      degrees: r, the sides of the neighbourhoods over which patches are averaged (LNAMD), odd.
      lowest: fraction of the images, the nearest ones of each patch, over which distances are averaged (MSM), in (0, 1].
      neighbors: k, of how many images with the largest similarity, itself included, an image's score is the weighted mean; the
        mean over all k (RsCIN). The authors take (1, 8, 9) for VisA. Empty: scores stay the maxima of the maps.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or fewer than two images.
    """
    layers, (class_layer,) = check_layers(backbone, layers), check_layers(backbone, (class_layer,))
    check_options("(0, 1]", lowest=lowest)
    for number in degrees:
        check_odd(degrees=number)
    if not degrees or any(number < 1 for number in neighbors):
        raise UserError(f"detector.degrees must not be empty and detector.neighbors at least 1, got {degrees}, {neighbors}")

    def embed(frozen, image):
        levels, descriptor = described(backbone, frozen, image, layers, class_layer)
        return tuple(_standardized(level) for level in levels), ops.unit(descriptor) if normalize_class else descriptor

    def init(key, frozen, spec):
        del key, frozen
        if spec.num_images < 2:
            raise UserError("musc compares images with each other and got one; give more, or take another detector")
        return init_gallery(spec)

    def aggregated(level, degree, grid):
        """LNAMD: the mean over the neighbourhood, on the first level's grid, as unit vectors `[N, P, C]`."""
        pooled = ops.resize(ops.average_pool(level, degree), grid)
        return ops.unit(pooled.reshape(len(level), -1, level.shape[-1]))

    def finalize(state, size):
        number, grid = len(state.descriptors), state.levels[0].shape[1:3]
        nearest = max(1, int(lowest * (number - 1)))
        others = ~np.eye(number, dtype=bool)
        total, pairs = 0.0, [(level, degree) for degree in degrees for level in state.levels]
        with progress.track("mutual scores", number * len(pairs), "image") as report:
            for step, (level, degree) in enumerate(pairs):
                # a few images at a time, so that what is between takes little memory
                parts = [aggregated(level[i : i + _IMAGES], degree, grid) for i in range(0, number, _IMAGES)]
                sets = jnp.concatenate(parts)
                del parts
                found = ops.mutual_distances(sets, lambda done, _, step=step: report(step * number + done, number * len(pairs)))
                # MSM: a(p) = the mean over the images j != i, the nearest 30 % of them, of min over q of |p - q|
                found = found[others].reshape(number, number - 1, -1)
                total += np.partition(found, nearest - 1, axis=1)[:, :nearest].mean(axis=1)
        distances = jnp.asarray(total / len(pairs)).reshape(number, *grid)
        largest = jnp.stack([_map(distances[i : i + 1], size).max() for i in range(number)])
        score = largest
        if neighbors:
            similarity = jnp.matmul(state.descriptors, state.descriptors.T, precision="highest")
            score = rescore(_scaled(largest, largest), similarity, neighbors)
        return Mutual(state.levels, state.descriptors, distances, largest, score)

    def compared(state, levels):
        """The distances of images that were not in the batch, `[B, h, w]`: image after image of the batch."""
        rows, grid = len(levels[0]), levels[0].shape[1:3]
        queries = [[aggregated(level, degree, grid) for degree in degrees] for level in levels]

        def one(others):
            return jnp.stack([
                ops.largest_cosines(aggregated(other[None], degree, grid)[0], query)[1]
                for other, each in zip(others, queries, strict=True)
                for degree, query in zip(degrees, each, strict=True)
            ])  # fmt: skip

        found = jnp.moveaxis(ops.unit_distance(jax.lax.map(one, state.levels)), 0, -1)
        nearest = -jax.lax.top_k(-found, max(1, int(lowest * len(state.descriptors))))[0]
        return nearest.mean(axis=(0, -1)).reshape(rows, *grid)

    def predict(state, frozen, batch):
        del frozen
        levels, descriptor = batch.features
        own = jnp.clip(batch.index, 0, len(state.descriptors) - 1)
        there = state.descriptors[own]
        gap = jnp.linalg.norm(there - descriptor, axis=1)
        known = (batch.index >= 0) & (batch.index == own) & (gap < 1e-3 * jnp.linalg.norm(there, axis=1))
        distances = jax.lax.cond(
            jnp.any(batch.valid & ~known),
            lambda: compared(state, levels),
            lambda: jnp.zeros(levels[0].shape[:3]),
        )
        distances = jnp.where(known[:, None, None], state.distances[own], distances)
        maps = _map(distances, batch.image.shape[1:3])
        largest = maps.max(axis=(1, 2))
        if not neighbors:
            return Prediction(largest, maps)
        # a new image is the last of the images, for itself alone
        scaled = _scaled(jnp.append(state.largest, 0), state.largest)

        def alone(largest, descriptor):
            similarity = jnp.matmul(jnp.concatenate([state.descriptors, descriptor[None]]), descriptor, precision="highest")
            scores = scaled.at[-1].set(_scaled(largest, state.largest))
            return rescore(scores, similarity[None], neighbors)[0]

        return Prediction(jnp.where(known, state.score[own], jax.vmap(alone)(largest, descriptor)), maps)

    def phases(spec):
        def end(key, state, frozen):
            del key, frozen
            return finalize(state, spec.image_shape[:2])

        def finalized(state):
            return Mutual(state.levels, state.descriptors, *(state.count,) * 3)

        return (Phase("tokens", add_to_gallery, end, finalized=finalized),)

    return Detector(init, phases, predict, embed)


def rescore(scores: jax.Array, similarity: jax.Array, neighbors: Sequence[int]) -> jax.Array:
    """RsCIN: the mean over k of the mean score of the k most similar images, weighted by their similarity.

    Args:
      scores: `[N]`.
      similarity: of M images with all N, `[M, N]`.
      neighbors: the k; one above N is N.

    Returns:
      `[M]`.
    """
    means = []
    for k in neighbors:
        weights, index = jax.lax.top_k(similarity, min(k, similarity.shape[1]))
        means.append(jnp.sum(weights * scores[index], axis=1) / jnp.sum(weights, axis=1))
    return sum(means) / len(means)


def _standardized(level: jax.Array) -> jax.Array:
    """Zero mean and unit variance over the whole map of each image (LNAMD's LayerNorm, without weights)."""
    mean = level.mean(axis=(1, 2, 3), keepdims=True)
    return (level - mean) / jnp.sqrt(level.var(axis=(1, 2, 3), keepdims=True) + 1e-5)


def _scaled(values: jax.Array, largest: jax.Array) -> jax.Array:
    low, high = largest.min(), largest.max()
    return (values - low) / jnp.where(high > low, high - low, 1)


def _map(distances: jax.Array, size: tuple[int, int]) -> jax.Array:
    return ops.anomaly_map(distances, size, align_corners=True)
