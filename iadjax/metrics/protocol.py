"""What every evaluation shares: masks at another resolution, exact or streamed pixel metrics, the mean over categories."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from iadjax.metrics import streaming
from iadjax.metrics.pixel import pixel_metrics

__all__ = ["mean_over_categories", "pixel_metrics_within", "resize_mask"]


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask `[H, W]`, marked where it is not 0, as bool of (height, width), by nearest neighbour."""
    if mask.shape == tuple(size):
        return mask != 0
    image = Image.fromarray(np.ascontiguousarray(mask != 0).astype(np.uint8))
    return np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST)) != 0


def pixel_metrics_within(byte_budget: int, pairs: Iterable[tuple[np.ndarray, np.ndarray]], pilot: Any = None) -> dict[str, Any]:
    """`pixel_metrics` while the maps fit the budget; else from a stream, with its error bounds beside them.

    Args:
      byte_budget: bytes of float32 maps that are held at once.
      pairs: map `[H, W]` and mask of each image, read once.
      pilot: scores from all over the maps, as `streaming.init` takes them; None: the first maps.

    Returns:
      The keys of `pixel_metrics` and `pixel_exact`; and `pixel_error_bounds`, by the same keys, where it is False.
    """
    maps, masks, held, state = [], [], 0, None
    for each, mask in pairs:
        maps.append(each)
        masks.append(mask)
        held += 4 * each.size
        if held > byte_budget:
            state = streaming.update(streaming.init(pilot) if state is None else state, maps, masks)
            maps, masks, held = [], [], 0
    if state is None:
        return pixel_metrics(maps, masks) | {"pixel_exact": True}
    found, bounds = streaming.compute(streaming.update(state, maps, masks))
    return found | {"pixel_exact": False, "pixel_error_bounds": bounds}


def mean_over_categories(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Unweighted mean over categories of every number that all have, leaving NaN out; NaN where no category has one.

    Dicts are averaged likewise, `images` are added, flags hold where they do in all; text is that of the first.
    """
    mean: dict[str, Any] = {}
    for key, value in rows[0].items():
        # what only some categories have has no mean
        if not all(key in row for row in rows):
            continue
        column = [row[key] for row in rows]
        if isinstance(value, dict):
            mean[key] = mean_over_categories(column)
        elif isinstance(value, bool):
            mean[key] = all(column)
        elif isinstance(value, str):
            mean[key] = value
        elif key == "images":
            mean[key] = sum(column)
        else:
            known = [each for each in column if each == each]
            mean[key] = float(np.mean(known)) if known else float("nan")
    return mean
