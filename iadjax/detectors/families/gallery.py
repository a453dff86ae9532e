"""The gallery: tokens and a descriptor of every training image, from which images are retrieved."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.backbones import Backbone
from iadjax.detector import Batch, DataSpec
from iadjax.parallel.axis import all_rows

__all__ = [
    "Banks",
    "Gallery",
    "add_to_gallery",
    "bank_distances",
    "described",
    "init_gallery",
    "per_image",
    "retrieve",
]


class Gallery(NamedTuple):
    """The images, in the order of their split, on every device.

    Attributes:
      levels: tokens of each layer, `[N, h, w, C]`.
      descriptors: of whole images, `[N, E]`.
      count: int32 scalar; images so far.
    """

    levels: tuple[jax.Array, ...]
    descriptors: jax.Array
    count: jax.Array


class Banks(NamedTuple):
    """One bank for each layer.

    Attributes:
      levels: `[M, C]` each.
    """

    levels: tuple[jax.Array, ...]


def described(
    backbone: Backbone, frozen: Any, image: jax.Array, layers: Sequence[str], class_layer: str
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """Tokens of the layers, and the descriptor of the image.

    Args:
      backbone, frozen: the network.
      image: `[B, H, W, 3]`.
      layers: of the tokens.
      class_layer: of the descriptor; a layer of patches is averaged over its positions.

    Returns:
      `[B, h, w, C]` for each layer, and `[B, E]`.
    """
    *levels, descriptor = backbone.features(frozen["backbone"], image, (*layers, class_layer))
    return tuple(levels), descriptor.mean(axis=(1, 2)) if descriptor.ndim == 4 else descriptor


def init_gallery(spec: DataSpec) -> Gallery:
    """A gallery for all training images, whose features are `(levels, descriptor)`."""
    levels, descriptors = jax.tree.map(lambda x: jnp.zeros((spec.num_images, *x.shape[1:]), x.dtype), spec.features)
    return Gallery(levels, descriptors, jnp.int32(0))


def add_to_gallery(key: jax.Array, gallery: Gallery, frozen: Any, batch: Batch) -> tuple[Gallery, dict[str, jax.Array]]:
    """The update of a phase: writes the images of a batch at their positions in the split."""
    del key, frozen
    features, index, valid = all_rows((batch.features, batch.index, batch.valid))
    # padded rows get a position past the end, where nothing is written
    slots = jnp.where(valid, index, len(gallery.descriptors))
    kept = (gallery.levels, gallery.descriptors)
    levels, descriptors = jax.tree.map(lambda rows, new: rows.at[slots].set(new, mode="drop"), kept, features)
    gallery = Gallery(levels, descriptors, gallery.count + jnp.sum(valid, dtype=jnp.int32))
    return gallery, {"images": gallery.count}


def retrieve(gallery: Gallery, descriptor: jax.Array, number: int) -> tuple[jax.Array, jax.Array]:
    """The images with the nearest descriptors: Euclidean distances and indices, `[B, K]` each, K at most N."""
    return ops.nearest_neighbors(descriptor, gallery.descriptors, min(number, len(gallery.descriptors)))


def per_image(
    distance: Callable, levels: Sequence[jax.Array], gallery: Gallery, retrieved: jax.Array, block: int = 0
) -> list[jax.Array]:
    """Distances of patches to those of the images retrieved for each image, one image after the other.

    Args:
      distance: `(tokens [h, w, C], retrieved tokens [K, h, w, C]) -> [h, w]`.
      levels: tokens of a batch, `[B, h, w, C]` each.
      gallery: with the same layers.
      retrieved: indices of images, `[B, K]`.
      block: if above 0, the tokens of so many retrieved images are held at a time, and the smallest distance of all blocks
        counts; otherwise those of all.

    Returns:
      `[B, h, w]` for each layer.
    """

    def smallest(x, kept, index):
        if not 0 < block < len(index):
            return distance(x, kept[index])
        # the last block repeats the first image, which changes no minimum
        blocks = jnp.pad(index, (0, -len(index) % block), constant_values=-1)
        blocks = jnp.where(blocks < 0, index[0], blocks).reshape(-1, block)
        return jax.lax.map(lambda part: distance(x, kept[part]), blocks).min(axis=0)

    def one(rows):
        tokens, index = rows
        return [smallest(x, kept, index) for x, kept in zip(tokens, gallery.levels, strict=True)]

    return jax.lax.map(one, (tuple(levels), retrieved))


def bank_distances(levels: Sequence[jax.Array], banks: Banks, number: int = 1, cosine: bool = False) -> list[jax.Array]:
    """The distance of every token to its layer's bank.

    Args:
      levels: `[B, h, w, C]` each.
      banks: with the same layers.
      number: of nearest rows over which it is averaged; all if there are fewer.
      cosine: whether the tokens are unit vectors whose cosine distances are meant, instead of Euclidean ones.

    Returns:
      `[B, h, w]` for each layer.
    """
    found = []
    for level, bank in zip(levels, banks.levels, strict=True):
        distance, _ = ops.nearest_neighbors(level.reshape(-1, level.shape[-1]), bank, min(number, len(bank)))
        # 1 - cosine is half the squared distance of unit vectors
        distance = 0.5 * distance**2 if cosine else distance
        found.append(distance.mean(axis=1).reshape(level.shape[:3]))
    return found
