"""Views of an image that stay normal: INP-Former's copies of a few shots (Luo et al., CVPR 2025)."""

import numpy as np
from scipy import ndimage

from iadjax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["NUM_VIEWS", "view"]

_ANGLES = [k * np.pi / 16 for k in (-4, -3, -2, -1, 1, 2, 3, 4)]
_SHIFTS = [(a, b) for size in (0.2, 0.1) for a, b in ((size, size), (-size, size), (-size, -size), (size, -size))]
_GREY = np.array([0.299, 0.587, 0.114])

NUM_VIEWS = 1 + len(_ANGLES) + len(_SHIFTS) + 1 + 1 + 3


def view(image: np.ndarray, number: int) -> np.ndarray:
    """One of the `NUM_VIEWS` views of an image.

    In this order: the image; rotations by up to 45 degrees in both directions; shifts by a tenth and a twentieth of the sides
    along both diagonals; the mirrored image; the grey one; quarter turns. What comes in at the border is reflected.

    Args:
      image: `[H, W, 3]` float32 in [0, 1].
      number: which view, from 0.

    Returns:
      `[H, W, 3]` float32. The grey view is a weighed sum of the channels as the network normalises them, so that it may leave
      [0, 1] a little.
    """
    if number == 0:
        return image
    number -= 1
    if number < len(_ANGLES):
        cosine, sine = np.cos(_ANGLES[number]), np.sin(_ANGLES[number])
        return _moved(image, np.array([[cosine, sine], [-sine, cosine]]), np.zeros(2))
    number -= len(_ANGLES)
    if number < len(_SHIFTS):
        across, down = _SHIFTS[number]
        return _moved(image, np.eye(2), np.array([down * image.shape[0], across * image.shape[1]]) / 2)
    number -= len(_SHIFTS)
    if number == 0:
        return np.ascontiguousarray(image[:, ::-1])
    if number == 1:
        mean, std = (np.array(each)[None, None] for each in (IMAGENET_MEAN, IMAGENET_STD))
        grey = ((image - mean) / std) @ _GREY
        return (grey[..., None] * std + mean).astype(np.float32)
    turned = np.rot90(image, number - 1)
    # a quarter turn of an image that is not square is resized to its sides
    return np.ascontiguousarray(turned) if turned.shape == image.shape else _fitted(turned, image.shape)


def _moved(image: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """At each (row, column) from the centre what lies at `matrix` times it plus `shift`; bilinear."""
    centre = (np.array(image.shape[:2]) - 1) / 2
    whole, offset = np.eye(3), np.zeros(3)
    whole[:2, :2] = matrix
    offset[:2] = centre - matrix @ centre + shift
    return ndimage.affine_transform(image, whole, offset, order=1, mode="reflect")


def _fitted(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    scale = np.array(image.shape[:2]) / shape[:2]
    whole = np.diag([*scale, 1.0])
    return ndimage.affine_transform(image, whole, [*((scale - 1) / 2), 0.0], shape, order=1, mode="nearest")
