"""Every metric again from files alone: a table of scores, a folder of maps, a folder of masks, of this or of any other tool."""

import csv
import math
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from iadjax.data.listing import is_normal
from iadjax.data.masks import MaskReader
from iadjax.data.transform import resize_map
from iadjax.errors import UserError
from iadjax.metrics.binary import image_metrics
from iadjax.metrics.mapfiles import Folder, read_map
from iadjax.metrics.pixel import LIMITS, pixel_metrics
from iadjax.metrics.protocol import mean_over_categories, resize_mask

__all__ = ["evaluate_files"]

_COLUMNS = ("path", "category", "label", "score")
_IMAGE_KEYS = ("image_auroc", "image_ap", "image_f1max")
_PIXEL_KEYS = ("pixel_auroc", "pixel_ap", "pixel_f1max", *LIMITS)


class _Row(NamedTuple):
    """One image; `score` is NaN where only maps were given, `label` None where only its mask tells."""

    path: str
    category: str
    label: int | None
    score: float


def evaluate_files(
    scores: str | Path | None = None,
    maps: str | Path | None = None,
    masks: str | Path | None = None,
    eval_size: int | None = None,
    mask_threshold: float | str = "auto",
) -> dict[str, dict[str, Any]]:
    """Image and pixel metrics per category, recomputed from files without a network.

    Args:
      scores: a CSV with the columns `path, category, label, score`, as a run writes it. None: image metrics are NaN, and the
        images are those of `maps`; the category is the first folder of three (`category/defect/name`; a `test` between them
        is passed over), else the name of the folder of maps.
      maps: a folder of TIFF, NPY or PNG files, one 2-D map each, in any units; higher is more anomalous. None: no pixel
        metrics. The map of an image is the file with the image's relative path but for its suffix, or the only one whose
        path ends with the image's or is the end of it. Folders named `test`, `ground_truth`, `masks`, `maps` or
        `anomaly_maps` and the suffix `_mask` do not count in that comparison: the layout of MVTec submissions fits.
      masks: a folder of masks, found likewise and read as `iadjax.data.MaskReader` says. A normal image may lack one, then
        nothing is marked (in a table: label 0; without a table: it lies in a folder of `data.listing.NORMAL`) and its size is
        that of the category's masks, if they share one.
      eval_size: None or 0: metrics at each mask's own resolution, the map resized to it (bilinear in float32, PIL mode F;
        antialiased where it shrinks). An integer S: both at S x S, masks by nearest neighbour.

      mask_threshold: "auto", or the number above which a value of a mask marks a defect.

    Returns:
      For each category, and for their unweighted "mean": the keys of `image_metrics` and `pixel_metrics`, `resolution`
      ("original", "SxS" or "none" without maps) and `images`. NaN, with a warning, where a class is absent.

    Raises:
      UserError: a file is missing, ambiguous, unreadable or not a 2-D map, a row is not valid, or maps come without
        masks. It names the file.
    """
    if (maps is None) != (masks is None):
        raise UserError("pixel metrics need both maps and masks; give both folders or neither")
    if scores is None and maps is None:
        raise UserError("there is nothing to evaluate; give scores, or maps and masks")
    if eval_size is not None and eval_size < 0:
        raise UserError(f"eval_size must be a positive number of pixels, or 0 for the masks' own size, got {eval_size}")
    map_files = Folder(maps, "map") if maps is not None else None
    mask_files = Folder(masks, "mask") if masks is not None else None
    read_mask = MaskReader(mask_threshold)
    rows = _rows_of_maps(cast(Folder, map_files)) if scores is None else _read_scores(Path(scores))
    table = {}
    for category in dict.fromkeys(row.category for row in rows):
        some = [row for row in rows if row.category == category]
        found: dict[str, Any] = dict.fromkeys(_IMAGE_KEYS + _PIXEL_KEYS, float("nan"))
        if scores is not None:
            found |= image_metrics(np.array([row.score for row in some]), np.array([row.label for row in some]))
        if map_files is not None:
            found |= pixel_metrics(*_pairs(some, map_files, cast(Folder, mask_files), read_mask, eval_size))
        resolution = "none" if maps is None else f"{eval_size}x{eval_size}" if eval_size else "original"
        table[category] = found | {"resolution": resolution, "images": len(some)}
    table["mean"] = mean_over_categories(list(table.values()))
    return table


def _read_scores(file: Path) -> list[_Row]:
    try:
        with file.open(newline="", encoding="utf-8") as text:
            reader = csv.DictReader(text)
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                raise UserError(f"{file} must begin with the columns {','.join(_COLUMNS)}, got {reader.fieldnames}")
            lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read the scores {file} ({error})") from error
    rows, seen = [], set()
    for number, line in lines:
        try:
            row = _Row(line["path"], line["category"], int(line["label"]), float(line["score"]))
        except (TypeError, ValueError) as error:
            raise UserError(f"line {number} of {file} has no valid label and score ({error})") from error
        if row.label not in (0, 1) or not math.isfinite(row.score):
            raise UserError(
                f"line {number} of {file} needs the label 0 or 1 and a finite score, got {row.label} and {row.score}"
            )
        if row.path in seen:
            raise UserError(f"line {number} of {file} repeats the image {row.path}")
        seen.add(row.path)
        rows.append(row)
    if not rows:
        raise UserError(f"{file} holds no scores")
    return rows


def _rows_of_maps(folder: Folder) -> list[_Row]:
    rows = []
    for key, file in folder.files.items():
        category = key[0] if len(key) > 2 else folder.root.name
        # a folder of good images is the only sign that a missing mask is meant
        good = len(key) > 1 and is_normal(key[-2])
        rows.append(_Row(str(file.relative_to(folder.root)), category, 0 if good else None, float("nan")))
    return rows


def _pairs(
    rows: list[_Row], map_files: Folder, mask_files: Folder, read_mask: MaskReader, eval_size: int | None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Maps and masks of one size, image by image."""
    found = {row.path: _find_mask(row, mask_files) for row in rows}
    read = {path: read_mask(file).astype(bool) for path, file in found.items() if file is not None}
    taken: dict[Path, str] = {}
    maps, masks = [], []
    for row in rows:
        file = map_files.find(row.path)
        if file is None:
            raise UserError(f"there is no map of {row.path} under {map_files.root}")
        if file in taken:
            raise UserError(f"the map {file} fits both {taken[file]} and {row.path}; name maps by the paths of their images")
        taken[file] = row.path
        each = read_map(file)
        mask = read.get(row.path)
        if mask is None:
            mask = np.zeros((eval_size, eval_size) if eval_size else _size(row, each, read), bool)
        elif row.label == 0 and mask.any():
            raise UserError(f"the mask {found[row.path]} marks a defect, but {row.path} has the label 0")
        if eval_size:
            mask = resize_mask(mask, (eval_size, eval_size))
        maps.append(resize_map(each, mask.shape))
        masks.append(mask)
    return maps, masks


def _find_mask(row: _Row, mask_files: Folder) -> Path | None:
    file = mask_files.find(row.path)
    if file is None and row.label != 0:
        raise UserError(f"there is no mask of {row.path} under {mask_files.root}; only normal images may lack one")
    return file


def _size(row: _Row, each: np.ndarray, read: dict[str, np.ndarray]) -> tuple[int, int]:
    """The original size of a normal image without a mask: that of the others' masks, else that of its map."""
    sizes = {mask.shape for mask in read.values()}
    if len(sizes) > 1 and each.shape not in sizes:
        raise UserError(
            f"the size of {row.path} is not known: it has no mask, and the masks of {row.category} differ in size; "
            "give it an empty mask, or set eval_size"
        )
    return sizes.pop() if len(sizes) == 1 else each.shape
