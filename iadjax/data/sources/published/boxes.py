"""Boxes as masks, for data sets that mark defects with rectangles."""

from collections.abc import Sequence

import numpy as np

from iadjax.errors import UserError

__all__ = ["draw_boxes"]


def draw_boxes(boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, int], source: object) -> np.ndarray:
    """A mask `[H, W]` uint8 in {0, 1} that is 1 in every box.

    Args:
      boxes: (left, top, right, bottom) in pixels from 0; right and bottom are outside the box.
      size: (height, width).
      source: the file of the boxes, for the error message.

    Raises:
      UserError: a box is empty or leaves the image.
    """
    mask = np.zeros(size, np.uint8)
    for left, top, right, bottom in boxes:
        if not (0 <= left < right <= size[1] and 0 <= top < bottom <= size[0]):
            raise UserError(
                f"{source} marks the box {(left, top, right, bottom)} in an image of {size[1]}x{size[0]}; correct the file"
            )
        mask[top:bottom, left:right] = 1
    return mask
