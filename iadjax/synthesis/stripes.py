"""Masks of stripes (SCADN, Yan et al., AAAI 2021)."""

import numpy as np

__all__ = ["striped_masks"]


def striped_masks(size: tuple[int, int], number: int) -> np.ndarray:
    """Four masks of so many stripes along a side: vertical ones, the other half of them, horizontal ones, the other half.

    Args:
      size: (height, width), multiples of `number`.
      number: of stripes, even; so each mask hides half of the image, and each pixel is hidden by two of the four.

    Returns:
      `[4, height, width]` uint8, 1 where the image is hidden.
    """
    rows, columns = (np.arange(side) // (side // number) % 2 == 0 for side in size)
    masks = [np.broadcast_to(each, size) for each in (columns[None], ~columns[None], rows[:, None], ~rows[:, None])]
    return np.stack(masks).astype(np.uint8)
