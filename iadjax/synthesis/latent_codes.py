"""Anomalies among the codes of a discrete autoencoder (DSR, Zavrtanik et al., ECCV 2022, section 3.3)."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.ops.distances import in_parts, squared_distances
from iadjax.parallel.axis import own_rows

__all__ = ["NEAREST", "anomalous_codes", "disturbed_levels"]

NEAREST = 0.05
"""Fraction of a codebook, the codes next to a feature, that are no anomaly there (authors' code)."""


def anomalous_codes(key: jax.Array, z: jax.Array, embedding: jax.Array, strength: jax.Array) -> jax.Array:
    """For each feature a random code among the nearest ones, but for the fraction `NEAREST`: `[B, h, w, D]`.

    Args:
      key: draws the codes.
      z: features `[B, h, w, D]`.
      embedding: the codebook `[K, D]`.
      strength: lambda_s `[B]` in [0, 1], the fraction of the codebook that codes are drawn from.
    """
    codes, first = len(embedding), int(NEAREST * len(embedding))
    last = jnp.clip(jnp.floor(strength * codes).astype(jnp.int32) + 1, first + 1, codes - 1)
    rows = z.reshape(len(z), -1, z.shape[-1])
    drawn = own_rows(lambda number: jax.random.uniform(key, (number, rows.shape[1])), len(z))
    rank = first + jnp.floor(drawn * (last - first)[:, None].astype(drawn.dtype)).astype(jnp.int32)

    def one(image):
        order = jnp.argsort(squared_distances(image[0], embedding), axis=1)
        return jnp.take_along_axis(order, image[1][:, None], axis=1)[:, 0]

    return embedding[in_parts(one, (rows, rank), codes)].reshape(z.shape)


def disturbed_levels(
    key: jax.Array,
    discrete: Callable,
    codebook: Mapping[str, Mapping[str, jax.Array]],
    image: jax.Array,
    mask: jax.Array,
    min_strength: float,
) -> tuple[tuple[jax.Array, jax.Array], tuple[jax.Array, jax.Array], jax.Array]:
    """Puts anomalies on the low level of codes, the high one or both: half of the images have both, a quarter each one.

    Args:
      key: draws everything.
      discrete: `(method of nn.quantized.DiscreteAutoencoder, *arguments) -> its result`.
      codebook: of both levels.
      image: `[B, H, W, 3]`.
      mask: `[B, H, W]`, where the anomalies are.
      min_strength: `strength` of `anomalous_codes` is drawn from [min_strength, 1] for each image and level.

    Returns:
      (low, high) with anomalies; those without; the mask `[B, H, W]` int32 on the grid of the coarsest level that was changed.
    """
    keys, number = jax.random.split(key, 6), len(image)

    def uniform(key):
        return own_rows(lambda rows: jax.random.uniform(key, (rows,)), number)

    strengths = [min_strength + (1 - min_strength) * uniform(each) for each in keys[:2]]
    both, only_low = (uniform(each)[:, None, None, None] < 0.5 for each in keys[2:4])
    features, z = discrete("low", image)
    low, sides = discrete("quantize_low", z), [image.shape[1] // each.shape[1] for each in (z, features)]
    masks = [ops.block_max(mask[..., None], side) for side in sides]
    other = anomalous_codes(keys[4], z, codebook["vq_vae_top"]["embedding"], strengths[0])
    low_anomalous = jnp.where((masks[0] > 0) & (both | only_low), other, low)
    high = discrete("quantize_high", discrete("high", features, low))
    # the high level sees the anomalies of the low one where both have some
    z = discrete("high", features, jnp.where(both, low_anomalous, low))
    other = anomalous_codes(keys[5], z, codebook["vq_vae_bot"]["embedding"], strengths[1])
    high_anomalous = jnp.where((masks[1] > 0) & (both | ~only_low), other, discrete("quantize_high", z))
    coarse, fine = (ops.block_repeat(each, side) for each, side in zip(masks, sides, strict=True))
    shown = jnp.where(both | only_low, coarse, fine)[..., 0].astype(jnp.int32)
    return (low_anomalous, high_anomalous), (low, high), shown
