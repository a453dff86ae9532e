"""Losses of structure: SSIM and the similarity of gradient magnitudes, at one scale and at several."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from iadjax import ops

__all__ = ["gms", "ms_ssim", "ssim"]


# weights of the scales, the finest first (Wang et al., 2003, section 3.2)
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ssim(x: jax.Array, y: jax.Array, **options) -> jax.Array:
    """1 - the mean of the structural similarity map of `[B, H, W, C]` images (Wang et al., 2004; options: `ops.ssim`)."""
    return 1 - jnp.mean(ops.ssim(x, y, **options), axis=(1, 2, 3))


def ms_ssim(x: jax.Array, y: jax.Array, weights: Sequence[float] = _WEIGHTS, **options) -> jax.Array:
    """1 - the product over scales of mean(contrast and structure)^weight, the last with luminance (Wang et al., 2003, eq. 7).

    Every scale halves the image by 2 x 2 averaging. Where contrast and structure are negative they count as 0, as powers of
    negative numbers are not real.

    Args:
      x, y: `[B, H, W, C]`; sides divisible by 2^(number of weights - 1).
      weights: exponents, the finest scale first.
      **options: of `ops.ssim`.
    """
    product = 1.0
    for scale, weight in enumerate(weights):
        if scale:
            x, y = (ops.block_mean(each, 2) for each in (x, y))
        similarity = ops.ssim(x, y, luminance=scale == len(weights) - 1, **options)
        # the offset keeps the gradient of the power finite
        product *= (jnp.maximum(jnp.mean(similarity, axis=(1, 2)), 0) + 1e-12) ** weight
    return 1 - jnp.mean(product, axis=-1)


def gms(x: jax.Array, y: jax.Array, scales: int = 4, **options) -> jax.Array:
    """Mean over scales of 1 - GMS, the gradient magnitude similarity (Xue et al., 2014): MSGMS (RIAD, 2021, eq. 5-6).

    Every scale halves the image by 2 x 2 averaging, as in RIAD (Zavrtanik et al., Pattern Recognition 2021).

    Args:
      x, y: `[B, H, W, C]`; sides divisible by 2^(scales - 1).
      scales: number of scales; 1: GMS alone.
      **options: of `ops.gradient_similarity`.
    """
    return sum(jnp.mean(1 - each, axis=(1, 2)) for each in ops.gradient_similarities(x, y, scales, **options)) / scales
