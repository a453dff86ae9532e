"""Saturated per-region overlap and the split figures of MVTec LOCO AD.

Bergmann et al. 2022, Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection, IJCV.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iadjax.errors import UserError
from iadjax.metrics.binary import auroc
from iadjax.metrics.inputs import as_scores, undefined
from iadjax.metrics.overlap import areas, check_limits, ranks_polyline
from iadjax.metrics.ranks import rank

__all__ = ["Defect", "Saturation", "au_spro", "loco_au_spro", "loco_defects", "loco_image_auroc", "read_defects_config", "spro"]

_KINDS = ("structural", "logical")


class Defect(NamedTuple):
    """One annotated defect of an image; its mask may have several components.

    Attributes:
      mask: `[H, W]` bool, not empty.
      saturation: area in pixels from which the defect counts as fully found; above 0.
    """

    mask: np.ndarray
    saturation: float


class Saturation(NamedTuple):
    """A saturation rule: `threshold` x area of the defect if `relative`, else min(`threshold` pixels, area of the defect)."""

    threshold: float
    relative: bool


def read_defects_config(file: str | Path) -> dict[int, Saturation]:
    """Saturation rules of a `defects_config.json` of MVTec LOCO AD, by the pixel value that marks the defect in its mask.

    The file is a list of objects with `pixel_value`, `saturation_threshold` and `relative_saturation`.

    Raises:
      UserError: the file cannot be read, or an entry lacks a key.
    """
    try:
        entries = json.loads(Path(file).read_text(encoding="utf-8"))
        return {
            int(each["pixel_value"]): Saturation(float(each["saturation_threshold"]), bool(each["relative_saturation"]))
            for each in entries
        }
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"cannot read {file} as a defects_config.json of MVTec LOCO AD ({error!r})") from error


def loco_defects(masks: Sequence[np.ndarray], config: Mapping[int, Saturation]) -> list[Defect]:
    """The defects of one image from its mask files.

    Args:
      masks: one integer array `[H, W]` per file, 0 or the pixel value of one defect.
      config: from `read_defects_config`.

    Raises:
      UserError: a mask is empty, holds several values, or holds a value that the config lacks.
    """
    defects = []
    for i, mask in enumerate(masks):
        values = np.setdiff1d(mask, [0])
        if len(values) != 1 or int(values[0]) not in config:
            raise UserError(f"mask {i} must hold one of the pixel values {sorted(config)} beside 0, got {values.tolist()}")
        rule = config[int(values[0])]
        marked = mask != 0
        area = int(marked.sum())
        defects.append(Defect(marked, rule.threshold * area if rule.relative else min(rule.threshold, area)))
    return defects


def spro(maps: Sequence[Any], defects: Sequence[Sequence[Defect]], threshold: float) -> float:
    """Saturated per-region overlap at a threshold: sPRO = (1 / m) sum_i min(|A_i & P| / s_i, 1).

    A_i are the pixels of the i-th of all m defects, s_i its saturation area, P the pixels with score >= threshold.

    Args:
      maps: one `[H, W]` array per image.
      defects: the defects of each image; empty for a good one.
      threshold: in the units of the maps.

    Returns:
      A float; NaN with one warning without a defect.

    Raises:
      UserError: shapes do not fit, a defect is empty or saturates at 0, or maps hold NaN or infinities (counted).
    """
    maps = _checked(maps, defects)
    found = [
        min(np.sum(each[defect.mask].astype(np.float64) >= threshold) / defect.saturation, 1.0)
        for each, some in zip(maps, defects, strict=True)
        for defect in some
    ]
    return float(np.mean(found)) if found else undefined("sPRO needs a defect")


def au_spro(
    maps: Sequence[Any], defects: Sequence[Sequence[Defect]], fpr_limit: float | Sequence[float] = 0.05
) -> float | tuple[float, ...]:
    """Area under sPRO over the false positive rate, to a limit and divided by it; exact, as `aupro`.

    The false positive rate is over the pixels of all images that no defect covers.

    Args:
      maps, defects: as in `spro`.
      fpr_limit: in (0, 1], or several.

    Returns:
      A float, or one per limit; NaN with one warning without a defect or a defect-free pixel.

    Raises:
      UserError: as `spro`, or a limit is out of range.
    """
    check_limits(fpr_limit)
    maps = _checked(maps, defects)
    positives, weights, negatives = [np.zeros(0, np.float32)], [np.zeros(0)], [np.zeros(0, np.float32)]
    for each, some in zip(maps, defects, strict=True):
        free = np.ones(each.shape, bool)
        for defect in some:
            free &= ~np.asarray(defect.mask, bool)
            # the j-th pixel of a defect adds what it adds to min(j / s, 1): the sum over those >= t is that defect's term
            descending = np.sort(each[defect.mask])[::-1]
            positives.append(descending)
            weights.append(np.diff(np.minimum(np.arange(len(descending) + 1) / defect.saturation, 1.0)))
        negatives.append(each[free])
    count = len(positives) - 1
    ranks = rank(np.concatenate(positives), np.concatenate(negatives), np.concatenate(weights) / max(count, 1))
    if not ranks.positives or not ranks.negatives:
        nan = undefined("AU-sPRO needs a defect and defect-free pixels")
        return (nan,) * len(fpr_limit) if isinstance(fpr_limit, Sequence) else nan
    return areas(*ranks_polyline(ranks), fpr_limit)


def loco_au_spro(
    maps: Sequence[Any], defects: Sequence[Sequence[Defect]], kinds: Sequence[str], fpr_limit: float = 0.05
) -> dict[str, float]:
    """AU-sPRO of the structural and of the logical anomalies, each with all good images, and the mean of the two.

    Args:
      maps, defects, fpr_limit: as in `au_spro`.
      kinds: for each image "good", "structural" or "logical"; the folder names `structural_anomalies` and
        `logical_anomalies` of the data set work too.

    Returns:
      A dict with `structural`, `logical`, `mean`.
    """

    def area(chosen):
        return au_spro([maps[i] for i in chosen], [defects[i] for i in chosen], fpr_limit)

    return _split(area, kinds, len(maps))


def loco_image_auroc(scores: Any, kinds: Sequence[str]) -> dict[str, float]:
    """Image AUROC of good against structural and of good against logical anomalies, and the mean of the two.

    Args:
      scores: `[N]`.
      kinds: as in `loco_au_spro`.

    Returns:
      A dict with `structural`, `logical`, `mean`.
    """
    scores = as_scores(scores)
    return _split(lambda chosen: auroc(scores[chosen], [kinds[i] != "good" for i in chosen]), kinds, len(scores))


def _split(metric, kinds: Sequence[str], count: int) -> dict[str, float]:
    plain = [kind.removesuffix("_anomalies") for kind in kinds]
    if len(plain) != count or not set(plain) <= {"good", *_KINDS}:
        raise UserError(
            f"kinds must be 'good', 'structural' or 'logical' for each of {count} images, "
            f"got {len(plain)} of {sorted(set(plain))}"
        )
    found = {kind: metric([i for i, each in enumerate(plain) if each in ("good", kind)]) for kind in _KINDS}
    return found | {"mean": float(np.mean(list(found.values())))}


def _checked(maps: Sequence[Any], defects: Sequence[Sequence[Defect]]) -> list[np.ndarray]:
    if len(maps) != len(defects):
        raise UserError(f"got {len(maps)} maps but defects of {len(defects)} images")
    checked = [as_scores(each, "maps") for each in maps]
    for i, (each, some) in enumerate(zip(checked, defects, strict=True)):
        for defect in some:
            if each.shape != np.shape(defect.mask):
                raise UserError(f"map {i} is {each.shape} but a defect's mask is {np.shape(defect.mask)}; resize the map to it")
            if defect.saturation <= 0 or not np.any(defect.mask):
                raise UserError(f"a defect of image {i} marks nothing or has the saturation area {defect.saturation}")
    return checked
