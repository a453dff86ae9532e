"""RAD: "Is Training Necessary for Anomaly Detection?" (Zhang et al., ICML 2026, arXiv 2601.22763).

An image retrieves its nearest normal images by their class tokens. Each of its patches is then compared with the patches of
those images at about the same place, on several layers.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gallery import add_to_gallery, described, init_gallery, per_image, retrieve
from iadjax.detectors.families.options import check_odd, check_options

__all__ = ["rad"]

# retrieved images whose tokens are gathered at a time: 154 MB for ViT-B/16 at 448 pixels
_BLOCK = 64


def rad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("block4.norm", "block7.norm", "block10.norm", "norm"),
    class_layer: str = "class",
    num_images: int = 150,
    positional: bool = True,
    radius: int = 1,
    top: float = 0.01,
    map_size: int = 256,
    sigma: float = 1.0,
    kernel_size: int = 5,
) -> Detector:
    """Builds RAD.

    Map: cosine distance of patch tokens, the mean over the layers, in [0, 2], smoothed.

    The state holds the tokens of all training images, on every device: 9.6 MB for each image of 448 pixels with four layers of
    ViT-B/16.

    Args:
      backbone: frozen network; DINOv3 ViT-B/16 in the paper.
      layers: the patch tokens; the default are the authors' blocks 3, 6, 9 and 11, counted from 0, behind the last norm.
      class_layer: the descriptor by which images are retrieved: the class token of the last block. A layer of patches is
        averaged over its positions.
      num_images: how many nearest images are retrieved; all if there are fewer. The authors take 150 for MVTec AD, 900 for VisA
        and Real-IAD.
      positional: whether a patch is compared with patches near its own position alone; otherwise with all of them.
      radius: how far these are away at most, in patches along each side: 1 for MVTec AD, 2 for VisA, 0 for Real-IAD.
      top: fraction of the map, in (0, 1]; the mean of the largest values is the image's score.
      map_size: side of the map when it is smoothed and scored; 256 in the authors' code. 0 = the input's own, as in anomalib.
      sigma: of the Gaussian that smooths that map; 0 = off.
      kernel_size: taps of that Gaussian, odd. Its border is mirrored, as in anomalib; the authors have zeros there.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers, (class_layer,) = check_layers(backbone, layers), check_layers(backbone, (class_layer,))
    check_options("[1, inf)", num_images=num_images)
    check_options("[0, inf)", radius=radius, map_size=map_size, sigma=sigma)
    check_options("(0, 1]", top=top)
    check_odd(kernel_size=kernel_size)

    def embed(frozen, image):
        return jax.tree.map(ops.unit, described(backbone, frozen, image, layers, class_layer))

    def distance(x, retrieved):
        if positional:
            return 1 - _best_cosine(x, retrieved, radius)
        found, _ = ops.nearest_neighbors(x.reshape(-1, x.shape[-1]), retrieved.reshape(-1, x.shape[-1]), 1)
        return 0.5 * found.reshape(x.shape[:2]) ** 2

    def predict(gallery, frozen, batch):
        del frozen
        levels, descriptor = batch.features
        _, nearest = retrieve(gallery, descriptor, num_images)
        height, width = batch.image.shape[1:3]
        size = (map_size, map_size) if map_size else (height, width)
        maps = [ops.anomaly_map(each, size) for each in per_image(distance, levels, gallery, nearest, _BLOCK)]
        maps = sum(maps) / len(maps)
        maps = ops.kernel_blur(maps, sigma, kernel_size) if sigma else maps
        score = ops.top_mean(maps.reshape(len(maps), -1), top)
        return Prediction(score, ops.resize(maps[..., None], (height, width))[..., 0])

    return Detector(
        init=lambda key, frozen, spec: init_gallery(spec),
        phases=lambda spec: (Phase("fit", add_to_gallery),),
        predict=predict,
        embed=embed,
    )


def _best_cosine(x: jax.Array, retrieved: jax.Array, radius: int) -> jax.Array:
    """For unit tokens `[h, w, C]` the largest cosine among those of `[K, h, w, C]` at most `radius` rows and columns away."""
    height, width = x.shape[:2]
    best = jnp.full((height, width), -1.0, x.dtype)
    for down in range(-min(radius, height - 1), min(radius, height - 1) + 1):
        for right in range(-min(radius, width - 1), min(radius, width - 1) + 1):
            rows, columns = (slice(max(0, -step), size - max(0, step)) for step, size in ((down, height), (right, width)))
            there = retrieved[:, rows.start + down : rows.stop + down, columns.start + right : columns.stop + right]
            cosine = jnp.einsum("hwc,khwc->khw", x[rows, columns], there, precision="highest").max(axis=0)
            best = best.at[rows, columns].max(cosine)
    return best
