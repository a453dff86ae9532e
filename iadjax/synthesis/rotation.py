"""Rotated images as the authors of DevNet and SubspaceAD make them."""

import numpy as np
from PIL import Image

__all__ = ["rotate_nearest"]


def rotate_nearest(image: np.ndarray, degrees: float) -> np.ndarray:
    """`[H, W, 3]` float32 rotated counter-clockwise about its centre: nearest neighbours, zeros outside."""
    channels = [Image.fromarray(image[..., c]).rotate(degrees, Image.Resampling.NEAREST) for c in range(image.shape[-1])]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)
