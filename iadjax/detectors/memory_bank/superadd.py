"""SuperADD: "Training-free Class-agnostic Anomaly Segmentation, CVPR 2026 VAND 4.0 Workshop Challenge Industrial Track"
(Room et al., 2026, arXiv 2605.14808).

One memory bank for each of several layers of a large network, whose tokens come from overlapping tiles. The score of a patch is
its distance from the banks.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gallery import Banks, add_to_gallery, bank_distances, init_gallery
from iadjax.detectors.families.options import check_options

__all__ = ["superadd", "thinned"]


def superadd(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("block8", "block16", "block24", "block32"),
    tile: int = 640,
    overlap: int = 128,
    brightness: float = 0.2,
    bank_size: int = 100_000,
    subsets: int = 100,
    density_neighbors: int = 100,
    top: float = 0.001,
    sigma: float = 4.0,
) -> Detector:
    """Builds SuperADD.

    Map: Euclidean distance of tokens by their number of channels, the mean over the layers, smoothed.

    The state holds the tokens of all training images while it is fitted. The authors' threshold (1.421 times the 95th
    percentile of normal maps) and the morphology of their masks are no part of it.

    Args:
      backbone: frozen network; DINOv3 ViT-H+/16 in the authors' code.
      layers: the tokens, without the last norm; the authors' 7, 15, 23 and 31, counted from 0. anomalib has 3, 5, 8 and 10 for
        networks of 12 blocks.
      tile: side of the squares that go through the network, in pixels, 0 = the whole image; 640 in the authors' code, 448 in
        anomalib.
      overlap: of two tiles on each side of their common border, in pixels; 128 in the authors' code, 16 in anomalib.
      brightness: a training image is multiplied by a number within so much of 1, drawn for it; 0 = off, as in anomalib.
      bank_size: tokens that each bank holds at most.
      subsets: parts into which the tokens are divided at random, and thinned each for itself; the authors draw them anew, here
        they are disjoint.
      density_neighbors: neighbours that are counted at most when a token's density is measured.
      top: fraction of the pixels, in (0, 1]; the mean of the largest ones is the image's score.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or tiles that do not fit the image.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", bank_size=bank_size, subsets=subsets, density_neighbors=density_neighbors)
    check_options("[0, inf)", tile=tile, overlap=overlap, sigma=sigma)
    check_options("[0, 1)", brightness=brightness)
    check_options("(0, 1]", top=top)
    if tile:
        check_options(f"[0, {tile / 2:g})", overlap=overlap)

    def embed(frozen, image):
        features = lambda x: backbone.features(frozen["backbone"], x, layers)  # noqa: E731
        levels = ops.stitched_levels(features, image, tile, overlap) if tile else features(image)
        # no image is retrieved, and a checkpoint holds no empty array
        return tuple(levels), jnp.zeros((len(image), 1))

    def augment(rng, image, draw):
        del draw
        factor = np.float32(1 + rng.uniform(-brightness, brightness))
        return {"brightened": np.clip(image * factor, 0, 1)}

    def update(key, state, frozen, batch):
        if brightness:
            batch = batch._replace(features=embed(frozen, batch.extra["brightened"]))
        return add_to_gallery(key, state, frozen, batch)

    def finalize(key, state, frozen):
        del frozen
        keys = jax.random.split(key, len(layers))
        banks = []
        with progress.track("thin", len(layers), "layer") as report:
            for i, level in enumerate(state.levels):
                tokens = level.reshape(-1, level.shape[-1])
                rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[i])))
                banks.append(tokens[thinned(rng, tokens, bank_size, subsets, density_neighbors)])
                report(i + 1, len(layers))
        return Banks(tuple(banks))

    def predict(banks, frozen, batch):
        del frozen
        levels, _ = batch.features
        size = batch.image.shape[1:3]
        found = bank_distances(levels, banks)
        maps = [ops.anomaly_map(each / x.shape[-1], size) for each, x in zip(found, levels, strict=True)]
        maps = sum(maps) / len(maps)
        maps = ops.kernel_blur(maps, sigma, 2 * int(4 * sigma + 0.5) + 1) if sigma else maps
        return Prediction(ops.top_mean(maps.reshape(len(maps), -1), top), maps)

    return Detector(
        init=lambda key, frozen, spec: init_gallery(spec),
        phases=lambda spec: (
            Phase(
                "fit",
                update,
                finalize,
                augment=augment if brightness else None,
                finalized=lambda state: Banks(state.levels),
            ),
        ),
        predict=predict,
        embed=embed,
    )


def thinned(rng: np.random.Generator, tokens: jax.Array, most: int, subsets: int, neighbors: int) -> np.ndarray:
    """Indices of at most `most` tokens that lie about evenly, without greedy picks.

    A token stays with the probability 1 / (n + 1). n counts the tokens of its subset, itself included, that are closer than a
    radius. The radius grows by a tenth until few enough stay. Tokens that went are drawn until there are `most`.

    Args:
      rng: draws the subsets and what stays.
      tokens: `[N, C]`.
      most: how many may stay.
      subsets: parts of the tokens, each thinned for itself.
      neighbors: the largest n.

    Returns:
      `[min(N, most)]` int, ascending.
    """
    number = len(tokens)
    if number <= most:
        return np.arange(number)
    subsets = min(subsets, most)
    stays = np.zeros(number, bool)
    for part in np.array_split(rng.permutation(number), subsets):
        rows = tokens[np.sort(part)]
        distance = np.asarray(ops.nearest_neighbors(rows, rows, min(neighbors, len(rows)))[0])
        draws, radius = rng.random(len(rows)), max(distance.mean() / 10, 1e-12)
        kept = draws < 1 / ((distance < radius).sum(axis=1) + 1)
        while kept.sum() > most // subsets and radius <= distance.max():
            radius *= 1.1
            kept = draws < 1 / ((distance < radius).sum(axis=1) + 1)
        # a subset of one dense cloud may still be too large
        kept &= draws <= np.sort(np.append(draws[kept], np.inf))[min(kept.sum(), most // subsets) - 1]
        stays[np.sort(part)[kept]] = True
    gone = np.flatnonzero(~stays)
    stays[rng.permutation(gone)[: most - stays.sum()]] = True
    return np.flatnonzero(stays)
