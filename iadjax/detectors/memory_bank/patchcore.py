"""PatchCore: "Towards Total Recall in Industrial Anomaly Detection" (Roth et al., CVPR 2022, arXiv 2106.08265).

A memory bank M holds patch features of normal images, thinned by a greedy coreset. The score of an image is the distance of
its most anomalous patch from M.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.memory_bank import coreset, memory_bank
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.errors import UserError

__all__ = ["patchcore"]


def patchcore(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3"),
    embedding: str = "pool",
    patch_size: int = 3,
    pretrain_dimension: int = 1024,
    target_dimension: int = 1024,
    coreset_ratio: float = 0.1,
    projection_eps: float = 0.9,
    reweight: bool = True,
    num_neighbors: int = 9,
    sigma: float = 4.0,
    bank_bytes: int = 0,
) -> Detector:
    """Builds PatchCore.

    Map: Euclidean distance of features, smoothed.

    Args:
      backbone: frozen network phi; its variables are `frozen["backbone"]`.
      layers: the hierarchy levels j of section 3.1; the grid of the first one is the grid of the patches.
      embedding: "pool": average pooling of every level over the neighbourhood, deeper levels resized to the first one's
        grid, channels concatenated. "unfold", the authors' code: neighbourhoods are unfolded. Adaptive average pooling over
        (channel, pixel), in that order, reduces every level to `pretrain_dimension`. The stacked levels are reduced to
        `target_dimension` likewise. Figures of the two do not compare.
      patch_size: p, the side of the neighbourhood (eq. 1-3), odd.
      pretrain_dimension, target_dimension: of "unfold" only.
      coreset_ratio: fraction of the patches that the coreset M_C keeps (Algorithm 1), in (0, 1].
      projection_eps: distortion of the random projection psi on which the coreset is chosen. The authors' code draws a dense
        one to 128 dimensions. Here it is sparse, and its dimension follows from the bound of Johnson and Lindenstrauss.
      reweight: whether the image score is weighted by eq. 7; the paper has it, the authors' code leaves it out. A
        bank of one patch has no neighbourhood, and its scores are not weighted.
      num_neighbors: b of eq. 7; N_b(m*) contains m* itself.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.
      bank_bytes: what the bank may take while it fills, over all devices; 0 = no limit. A full bank is compressed, so that
        the final coreset is that of a coreset (docs/scaling.md has the loss).

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    if embedding not in ("pool", "unfold"):
        raise UserError(f"detector.embedding must be 'pool' or 'unfold', got {embedding!r}")
    dimensions = {"pretrain_dimension": pretrain_dimension, "target_dimension": target_dimension}
    check_options("[1, inf)", num_neighbors=num_neighbors, **dimensions)
    check_options("(0, 1]", coreset_ratio=coreset_ratio)
    check_options("(0, 1)", projection_eps=projection_eps)
    check_options("[0, inf)", sigma=sigma)
    check_odd(patch_size=patch_size)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        if embedding == "pool":
            return ops.concatenate_levels([ops.average_pool(level, patch_size) for level in levels])
        return ops.patch_embedding(levels, patch_size, pretrain_dimension, target_dimension)

    def choose(key, bank):
        size, seen = int(bank.rows), int(bank.count) * int(bank.patches)
        number = min(size, max(1, int(seen * coreset_ratio)))
        if reweight and number < num_neighbors:
            progress.say(
                f"the bank holds {number} patches, fewer than detector.num_neighbors={num_neighbors}: scores are weighted by "
                "all of them" + (", so not at all" if number == 1 else "") + "; more images or a larger coreset_ratio help"
            )
        if number == size:
            return np.arange(size, dtype=np.int32), None
        return coreset(key, bank.features, number, size, projection_eps), None

    def predict(memory, frozen, batch):
        del frozen
        features, bank = batch.features, memory.features
        rows, height, width, depth = features.shape
        distance, nearest = ops.nearest_neighbors(features.reshape(-1, depth), bank, 1)
        distance, nearest = distance.reshape(rows, -1), nearest.reshape(rows, -1)
        # eq. 6: the patch that is farthest from M, s* = ||m_test - m*||
        worst = jnp.argmax(distance, axis=1)[:, None]
        score = jnp.take_along_axis(distance, worst, axis=1)[:, 0]
        # among one patch there is no neighbourhood: the weight would be 0
        if reweight and min(num_neighbors, len(bank)) > 1:
            test_patch = jnp.take_along_axis(features.reshape(rows, -1, depth), worst[..., None], axis=1)
            nearest_patch = ops.rows_at(bank, jnp.take_along_axis(nearest, worst, axis=1)[:, 0])
            _, neighbors = ops.nearest_neighbors(nearest_patch, bank, min(num_neighbors, len(bank)))
            to_neighbors = jnp.linalg.norm(test_patch - ops.rows_at(bank, neighbors), axis=-1)
            # eq. 7: w = 1 - exp(s*) / sum over N_b(m*) of exp(||m_test - m||), in the stable form of a softmax
            weight = 1 - jnp.exp(score - jax.nn.logsumexp(jnp.concatenate([score[:, None], to_neighbors[:, 1:]], 1), axis=1))
            score = weight * score
        # bilinear, then smoothed: section 3.3
        maps = ops.anomaly_map(distance.reshape(rows, height, width), batch.image.shape[1:3], sigma)
        return Prediction(score, maps)

    return memory_bank(lambda frozen, batch: batch.features, choose, predict, bank_bytes, embed=embed)
