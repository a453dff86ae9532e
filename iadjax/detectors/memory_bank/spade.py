"""SPADE: "Sub-Image Anomaly Detection with Deep Pyramid Correspondences" (Cohen & Hoshen, 2020, arXiv 2005.02357).

An image retrieves its nearest normal images by features of the whole image. Their mean distance is its score. Each of its
pixels is then compared with all pixels of those images, on several levels of the network.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gallery import add_to_gallery, described, init_gallery, per_image, retrieve
from iadjax.detectors.families.options import check_options

__all__ = ["spade"]


def spade(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    class_layer: str = "layer4",
    num_images: int = 50,
    num_neighbors: int = 1,
    sigma: float = 4.0,
) -> Detector:
    """Builds SPADE.

    Map: Euclidean distance of features, the mean over the levels, smoothed.

    Distances are not squared, as in the best known implementation; the formulas of the paper have squares. The state holds the
    levels of all training images, on every device: 6 MB for each image of 224 pixels with Wide ResNet-50-2.

    Args:
      backbone: frozen network; Wide ResNet-50-2 in the paper.
      layers: the levels of the feature pyramid whose pixels are compared (section 3.3).
      class_layer: the feature of the whole image (section 3.1): a layer averaged over its positions, or a class token.
      num_images: K, how many nearest normal images are retrieved (section 3.2); all if there are fewer. The paper has 50, the
        best known implementation 5.
      num_neighbors: kappa, over how many nearest pixels a pixel's distance is averaged (eq. 4); 1 in the paper.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers, (class_layer,) = check_layers(backbone, layers), check_layers(backbone, (class_layer,))
    check_options("[1, inf)", num_images=num_images, num_neighbors=num_neighbors)
    check_options("[0, inf)", sigma=sigma)

    def embed(frozen, image):
        return described(backbone, frozen, image, layers, class_layer)

    def distance(x, retrieved):
        bank = retrieved.reshape(-1, x.shape[-1])
        found, _ = ops.nearest_neighbors(x.reshape(-1, x.shape[-1]), bank, min(num_neighbors, len(bank)))
        return found.mean(axis=1).reshape(x.shape[:2])

    def predict(gallery, frozen, batch):
        del frozen
        levels, descriptor = batch.features
        # eq. 2: the mean distance to the K nearest images
        distances, nearest = retrieve(gallery, descriptor, num_images)
        size = batch.image.shape[1:3]
        maps = [ops.anomaly_map(each, size) for each in per_image(distance, levels, gallery, nearest)]
        maps = sum(maps) / len(maps)
        return Prediction(jnp.mean(distances, axis=1), ops.gaussian_blur(maps, sigma) if sigma else maps)

    return Detector(
        init=lambda key, frozen, spec: init_gallery(spec),
        phases=lambda spec: (Phase("fit", add_to_gallery),),
        predict=predict,
        embed=embed,
    )
