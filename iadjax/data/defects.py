"""Single defects of an image with their saturation areas, as in MVTec LOCO AD (Bergmann et al., IJCV 2022)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iadjax.errors import UserError

__all__ = ["Defect", "Saturation", "loco_defects", "read_defects_config"]


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
