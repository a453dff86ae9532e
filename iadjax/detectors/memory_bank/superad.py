"""SuperAD: "A Training-free Anomaly Classification and Segmentation Method for CVPR 2025 VAND 3.0 Workshop Challenge Track 1:
Adapt & Detect" (Zhang et al., 2025, arXiv 2505.19750).

A few images that differ most by their class tokens stand for all normal images. Patches are compared with theirs on several
layers.
"""

from collections.abc import Sequence

import jax

from iadjax import ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gallery import Banks, add_to_gallery, bank_distances, described, init_gallery
from iadjax.detectors.families.options import check_options

__all__ = ["superad"]


def superad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("block6.norm", "block12.norm", "block18.norm", "norm"),
    class_layer: str = "class",
    num_references: int = 16,
    reference_ratio: float = 0.1,
    num_neighbors: int = 1,
    top: float = 0.01,
    sigma: float = 4.0,
) -> Detector:
    """Builds SuperAD.

    Map: cosine distance of patch tokens, the mean over the layers, in [0, 2], smoothed.

    The state holds the tokens of all training images while it is fitted, and those of the references afterwards. The authors'
    masks of MVTec AD 2 rest on thresholds from labelled test images; here the threshold is the run's own.

    Args:
      backbone: frozen network; DINOv2 ViT-L/14 in the paper.
      layers: the patch tokens of four layers. Which ones the authors take is not published; these are a quarter apart.
      class_layer: the descriptor by which references are chosen: the class token. A layer of patches is averaged over its
        positions.
      num_references: images whose tokens are kept, chosen as a greedy k-centre coreset of the descriptors: 16 in the paper.
        0 = `reference_ratio` says how many.
      reference_ratio: fraction of the training images that is kept where `num_references` is 0, in (0, 1]; 0.1 in the
        authors' code.
      num_neighbors: over how many nearest tokens a distance is averaged.
      top: fraction of the patches, in (0, 1]; the mean distance of the most distant ones is the image's score.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers, (class_layer,) = check_layers(backbone, layers), check_layers(backbone, (class_layer,))
    check_options("[0, inf)", num_references=num_references, sigma=sigma)
    check_options("[1, inf)", num_neighbors=num_neighbors)
    check_options("(0, 1]", reference_ratio=reference_ratio, top=top)

    def embed(frozen, image):
        levels, descriptor = described(backbone, frozen, image, layers, class_layer)
        return jax.tree.map(ops.unit, levels), descriptor

    def finalize(key, state, frozen):
        del frozen
        count = len(state.descriptors)
        number = min(count, num_references or max(1, round(reference_ratio * count)))
        start = int(jax.random.randint(key, (), 0, count))
        chosen = ops.k_center_greedy(state.descriptors, number, start)
        progress.say(f"{number} of {count} images are references")
        return Banks(tuple(level[chosen].reshape(-1, level.shape[-1]) for level in state.levels))

    def predict(banks, frozen, batch):
        del frozen
        levels, _ = batch.features
        size = batch.image.shape[1:3]
        found = bank_distances(levels, banks, num_neighbors, cosine=True)
        maps = sum(ops.anomaly_map(each, size) for each in found) / len(found)
        patches = sum(ops.resize(each[..., None], found[0].shape[1:3])[..., 0] for each in found) / len(found)
        score = ops.top_mean(patches.reshape(len(patches), -1), top)
        return Prediction(score, ops.gaussian_blur(maps, sigma) if sigma else maps)

    return Detector(
        init=lambda key, frozen, spec: init_gallery(spec),
        phases=lambda spec: (Phase("fit", add_to_gallery, finalize, finalized=lambda state: Banks(state.levels)),),
        predict=predict,
        embed=embed,
    )
