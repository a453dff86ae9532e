"""What one pixel threshold decides, as MVTec AD 2 counts it: SegF1 over pixels and ClassF1 over images."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from iadjax.errors import UserError

__all__ = ["seg_and_class_f1"]


def seg_and_class_f1(images: Iterable[tuple[Any, Any, str]], threshold: float) -> dict[str, float]:
    """SegF1 and ClassF1 of MVTec AD 2 (Heckler-Kram et al., arXiv 2503.21622): one threshold, from normal images, decides both.

    With TP, FP and FN counted over the pixels of all images together, `seg_f1` = 2 TP / (2 TP + FP + FN); a pixel is flagged
    if its score is at least the threshold. `class_f1` is the same over images. An image is flagged if one of its pixels is, and
    anomalous if one is marked.

    Args:
      images: map `[H, W]` float, mask `[H, W]` that is not 0 on a defect, and the part that the image belongs to, such as
        "regular"; read once, so that they may come from a generator.
      threshold: in the units of the maps.

    Returns:
      `seg_f1`, `class_f1`, and both again for each part as `seg_f1_<part>`; NaN where nothing is marked and nothing flagged.

    Raises:
      UserError: a map and its mask differ in shape, a map holds NaN, or the threshold is no finite number.
    """
    if not np.isfinite(threshold):
        raise UserError(f"the threshold must be a finite number, got {threshold}")
    # TP, FP, FN of pixels and of images, by part
    counts: dict[str, np.ndarray] = {}
    for scores, mask, part in images:
        scores, marked = np.asarray(scores), np.asarray(mask) != 0
        if scores.shape != marked.shape:
            raise UserError(f"a map is {scores.shape}, but its mask is {marked.shape}; give both at one size")
        if np.isnan(scores).any():
            raise UserError("a map holds NaN, so nothing can be decided; compute it again")
        # a float32 threshold would be rounded
        flagged = scores >= np.float64(threshold)
        pair = [_count(flagged, marked), _count(flagged.any(), marked.any())]
        counts[part] = counts.get(part, np.zeros((2, 3), np.int64)) + np.array(pair, np.int64)
    total = sum(counts.values(), np.zeros((2, 3), np.int64))
    found = dict(zip(("seg_f1", "class_f1"), map(_f1, total), strict=True))
    for part, own in sorted(counts.items()):
        found |= {f"seg_f1_{part}": _f1(own[0]), f"class_f1_{part}": _f1(own[1])}
    return found


def _count(flagged: Any, marked: Any) -> tuple[int, int, int]:
    return int((flagged & marked).sum()), int((flagged & ~marked).sum()), int((~flagged & marked).sum())


def _f1(counts: np.ndarray) -> float:
    true, false, missed = map(int, counts)
    whole = 2 * true + false + missed
    return 2 * true / whole if whole else float("nan")
