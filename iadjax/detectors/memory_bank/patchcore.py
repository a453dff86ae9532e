"""PatchCore: "Towards Total Recall in Industrial Anomaly Detection" (Roth et al., CVPR 2022, arXiv 2106.08265).

A memory bank M holds patch features of normal images, thinned by a greedy coreset. The score of an image is the distance of
its most anomalous patch from M.
"""

from collections.abc import Sequence

from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector
from iadjax.detectors.families.memory_bank import memory_bank
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.patch_bank import choose_coreset, patch_features, patch_prediction, say_small

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
    incremental: bool = False,
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
      incremental: whether the state keeps all patches, or what `bank_bytes` left of them, so that a fit on further images
        (`start` of `iadjax.fit`) chooses from all of them. Without a budget the result is that of one fit on all images
        (docs/scaling.md). Then the coreset begins with the patch farthest from the mean instead of a random one.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", num_neighbors=num_neighbors)
    check_options("(0, 1]", coreset_ratio=coreset_ratio)
    check_options("(0, 1)", projection_eps=projection_eps)
    check_options("[0, inf)", sigma=sigma)
    embed = patch_features(backbone, layers, embedding, patch_size, pretrain_dimension, target_dimension)

    def choose(key, bank):
        index = choose_coreset(key, bank, coreset_ratio, projection_eps, from_mean=incremental)
        if reweight:
            say_small(len(index), num_neighbors)
        return index, None

    def predict(memory, frozen, batch):
        del frozen
        size = batch.image.shape[1:3]
        return patch_prediction(batch.features, memory.features, size, reweight, num_neighbors, sigma)

    return memory_bank(lambda frozen, batch: batch.features, choose, predict, bank_bytes, incremental, embed=embed)
