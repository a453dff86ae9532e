"""Steps of every evaluation: masks at another resolution, exact or streamed pixel metrics, the mean over categories."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from iadjax.data.defects import Defect
from iadjax.metrics import streaming
from iadjax.metrics.loco import KINDS, loco_au_spro
from iadjax.metrics.pixel import pixel_metrics

__all__ = ["loco_metrics_within", "mean_over_categories", "pixel_metrics_within", "resize_mask"]


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
    state = None
    for (maps, masks), more in _parts(byte_budget, pairs, 2):
        if state is None and not more:
            return pixel_metrics(maps, masks) | {"pixel_exact": True}
        state = streaming.update(streaming.init(pilot) if state is None else state, maps, masks)
    found, bounds = streaming.compute(streaming.init(pilot) if state is None else state)
    return found | {"pixel_exact": False, "pixel_error_bounds": bounds}


def loco_metrics_within(
    byte_budget: int, images: Iterable[tuple[np.ndarray, Sequence[Defect], str]], pilot: Any = None
) -> dict[str, Any]:
    """`loco_au_spro` while the maps fit the budget; else from a stream, with its error bounds.

    Args:
      byte_budget, pilot: as in `pixel_metrics_within`.
      images: map `[H, W]`, defects and kind of each image, as `loco_au_spro` takes them; read once.

    Returns:
      `au_spro` (the mean of the two), `au_spro_structural`, `au_spro_logical`, `au_spro_exact`; and `au_spro_error_bounds`
      where that is False.
    """

    def named(found):
        return {"au_spro": found["mean"]} | {f"au_spro_{kind}": found[kind] for kind in KINDS}

    state = None
    for (maps, defects, kinds), more in _parts(byte_budget, images, 3):
        if state is None and not more:
            return named(loco_au_spro(maps, defects, kinds)) | {"au_spro_exact": True}
        state = streaming.update_spro(streaming.init_spro(pilot) if state is None else state, maps, defects, kinds)
    found = streaming.au_spro(streaming.init_spro(pilot) if state is None else state)
    values, bounds = ({key: each[i] for key, each in found.items()} for i in range(2))
    return named(values) | {"au_spro_exact": False, "au_spro_error_bounds": named(bounds)}


def _parts(byte_budget: int, rows: Iterable[tuple], width: int) -> Iterator[tuple[list[list], bool]]:
    """The columns of as many rows as go past the budget with their first, float32, and whether more may follow."""
    columns: list[list] = [[] for _ in range(width)]
    held = 0
    for row in rows:
        for column, each in zip(columns, row, strict=True):
            column.append(each)
        held += 4 * row[0].size
        if held > byte_budget:
            yield columns, True
            columns, held = [[] for _ in range(width)], 0
    yield columns, False


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
