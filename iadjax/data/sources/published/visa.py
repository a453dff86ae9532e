"""VisA: twelve objects, 78 kinds of defects, 10,821 images.

Layout: <category>/Data/Images/{Normal,Anomaly}/NNNN.JPG, <category>/Data/Masks/Anomaly/NNNN.png, <category>/image_anno.csv,
  split_csv/{1cls,2cls_highshot,2cls_fewshot}.csv with the columns object, split, label, image, mask (paths from the root).
Masks: coded by kind of defect: 1, 2, ...; here a mask is 1 where the value is not 0.
Split: published. "visa" is 1cls.csv: 8,659 train, 962 + 1,200 test (normal + anomalous). "visa_2cls_highshot" (60 to 40) and
  "visa_2cls_fewshot" (20 to 80) have labelled anomalies in the training part: `Dataset.anomalies`, for the protocol
  "supervised". The kinds of defects come from image_anno.csv where it lies beside the images ("anomaly" without it).
Licence: CC BY 4.0.
Citation: Zou, Jeong, Pemula, Zhang, Dabeer: SPot-the-Difference Self-Supervised Pre-training for Anomaly Detection and
  Segmentation, ECCV 2022.
Address: https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar
Unchecked: the columns of image_anno.csv (image, label, mask). The counts are those of the authors' three CSV files.
"""

import csv
import functools
from collections.abc import Sequence
from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.masks import read_coded_mask, read_item
from iadjax.data.sources.published.common import chosen, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

_ONE_CLASS = {
    "candle": (900, 100, 100),
    "capsules": (542, 60, 100),
    "cashew": (450, 50, 100),
    "chewinggum": (453, 50, 100),
    "fryum": (450, 50, 100),
    "macaroni1": (900, 100, 100),
    "macaroni2": (900, 100, 100),
    "pcb1": (904, 100, 100),
    "pcb2": (901, 100, 100),
    "pcb3": (905, 101, 100),
    "pcb4": (904, 101, 100),
    "pipe_fryum": (450, 50, 100),
}
CATEGORIES = tuple(_ONE_CLASS)
_PARTS = ("train", "anomalies", "test_good", "test_anomalous")
# normal images of the training part and of the test, 60 to 40 and 20 to 80
_HIGH_SHOT = {
    "candle": (600, 400), "capsules": (361, 241), "cashew": (300, 200), "chewinggum": (302, 201), "fryum": (300, 200),
    "macaroni1": (600, 400), "macaroni2": (600, 400), "pcb1": (602, 402), "pcb2": (601, 400), "pcb3": (604, 402),
    "pcb4": (603, 402), "pipe_fryum": (300, 200),
}  # fmt: skip
_FEW_SHOT = {
    "candle": (200, 800), "capsules": (120, 482), "cashew": (100, 400), "chewinggum": (101, 402), "fryum": (100, 400),
    "macaroni1": (200, 800), "macaroni2": (200, 800), "pcb1": (201, 803), "pcb2": (200, 801), "pcb3": (201, 805),
    "pcb4": (201, 804), "pipe_fryum": (100, 400),
}  # fmt: skip
COUNTS = {
    "visa": table(("train", "test_good", "test_anomalous"), _ONE_CLASS),
    "visa_2cls_highshot": table(_PARTS, {name: (train, 60, test, 40) for name, (train, test) in _HIGH_SHOT.items()}),
    "visa_2cls_fewshot": table(_PARTS, {name: (train, 20, test, 80) for name, (train, test) in _FEW_SHOT.items()}),
}
read = functools.partial(read_item, read=read_coded_mask)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names, in the split that `name` names."""
    base = root_of(name, root, "split_csv, candle, capsules, ...")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / each)
    rows = _rows(base / "split_csv" / f"{name.removeprefix('visa').lstrip('_') or '1cls'}.csv")
    kinds = {path: kind for each in categories for path, kind in _kinds(base / each / "image_anno.csv").items()}
    parts = {"train": [], "anomalies": [], "test": []}
    missing = []
    for row in sorted(rows, key=lambda row: (row["object"], row["image"])):
        if row["object"] not in categories:
            continue
        label = int(row["label"] != "normal")
        file, mask = base / row["image"], base / row["mask"] if label else None
        missing += [each for each in (file, mask) if each and not each.is_file()]
        defect = kinds.get(row["image"], "anomaly") if label else "good"
        item = Item(row["image"], row["object"], label, defect, file, mask)
        parts["test" if row["split"] == "test" else "anomalies" if label else "train"].append(item)
    if missing:
        names = ", ".join(map(str, missing[:3]))
        raise UserError(f"{len(missing)} files that the split of {name} lists are missing, like {names}; complete the data set")
    return Dataset(
        name, categories, tuple(parts["train"]), tuple(parts["test"]), read, True, anomalies=tuple(parts["anomalies"])
    )


def _rows(file: Path) -> list[dict[str, str]]:
    return _table(file, ("object", "split", "label", "image", "mask"))


def _kinds(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    return {row["image"]: row["label"] for row in _table(file, ("image", "label"))}


def _table(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
    except OSError as error:
        raise UserError(f"cannot read {file} ({error.strerror}); it is part of VisA: complete the data set") from error
    lacking = [column for column in columns if not rows or rows[0].get(column) is None]
    if lacking:
        raise UserError(f"the table {file} lacks the columns {', '.join(lacking)}; take the published file")
    return rows
