"""Anomalies of TransFusion (Fučka et al., ECCV 2024), whose transparency a diffusion changes step by step."""

import numpy as np

from iadjax.synthesis.perlin_texture import distort, rotated_noise
from iadjax.synthesis.source import Source
from iadjax.synthesis.structure import foreground_mask, shuffled_grid

__all__ = ["transparent_anomaly"]


def transparent_anomaly(
    rng: np.random.Generator, image: np.ndarray, source: Source, foreground: str = "all", threshold: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What an anomaly looks like, where it is, and a mask of it with faults, as a network finds one on its way.

    The anomaly is a texture or the image itself in 8 x 8 pieces that have changed places, each with probability 1/2 and
    distorted. It lies where the absolute Perlin noise is above the threshold. The other mask has with probability 1/4 each: no
    pixel, a higher threshold, the same one, a lower one.

    Args:
      rng: draws everything.
      image: `[H, W, 3]` float32 in [0, 1].
      source: of textures.
      foreground: where anomalies may be, see `synthesis.structure.foreground_mask`.
      threshold: of the noise.

    Returns:
      `(appearance [H, W, 3] float32 in [0, 1], mask [H, W] bool, faulty mask [H, W] bool)`; the mask may be empty.
    """
    size = image.shape[:2]
    noise = np.where(foreground_mask(image, foreground), np.abs(rotated_noise(rng, size)), 0)
    appearance = distort(rng, source(rng, size)) if rng.random() < 0.5 else shuffled_grid(rng, distort(rng, image), 8)
    fault = rng.random()
    least = (np.inf, rng.uniform(threshold, 1), threshold, rng.uniform(0, threshold))[int(4 * fault)]
    return appearance, noise > threshold, noise > least
