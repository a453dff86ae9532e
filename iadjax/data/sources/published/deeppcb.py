"""DeepPCB: 1,500 pairs of a defect-free template and a tested image of bare circuit boards, binary, 640 x 640 pixels.

Layout: PCBData/{trainval,test}.txt, each line "groupNNNNN/NNNNN/<id>.jpg groupNNNNN/NNNNN_not/<id>.txt"; the images are
  groupNNNNN/NNNNN/<id>_temp.jpg (template) and <id>_test.jpg; the boxes are groupNNNNN/NNNNN_not/<id>.txt, each line
  "x1 y1 x2 y2 kind" with the kinds 1 open, 2 short, 3 mousebite, 4 spur, 5 copper, 6 pin-hole.
Masks: drawn from the boxes, corners included.
Split: published: 1,000 pairs for training and validation, 500 for test. Templates are the normal images; the tested images of
  the training pairs are `Dataset.anomalies` (protocol "supervised"). An image with several kinds has the defect "several".
Licence: MIT for the repository; its text allows research use only.
Citation: Tang, He, Huang, Yang: Online PCB Defect Detector On A New PCB Defect Dataset, arXiv 1902.06197, 2019.
Address: https://github.com/tangsanli5201/DeepPCB
Unchecked: nothing; layout, counts and boxes were compared with the published files.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.data.images import read_image
from iadjax.data.sources.folder import select_categories
from iadjax.data.sources.published.boxes import draw_boxes
from iadjax.data.sources.published.common import readable, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

KINDS = ("open", "short", "mousebite", "spur", "copper", "pin-hole")
CATEGORIES = ("pcb",)
COUNTS = {"deeppcb": table(("train", "anomalies", "test_good", "test_anomalous"), {"pcb": (1000, 1000, 500, 500)})}


def read(item: Item, image: Callable[[Path], np.ndarray] = read_image) -> tuple[np.ndarray, np.ndarray]:
    """Image, and the mask that its boxes make."""
    pixels = image(item.file)
    boxes = _boxes(item.mask) if item.mask else []
    return pixels, draw_boxes([(x1, y1, x2 + 1, y2 + 1) for x1, y1, x2, y2, _ in boxes], pixels.shape[:2], item.mask)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index; `root` is PCBData or the folder that holds it."""
    base = root_of(name, root, "PCBData")
    base = base / "PCBData" if (base / "PCBData").is_dir() else base
    categories = select_categories(category, CATEGORIES)
    train, anomalies = _pairs(base, "trainval.txt")
    good, bad = _pairs(base, "test.txt")
    return Dataset(name, categories, train, good + bad, read, True, anomalies=anomalies)


def _pairs(base: Path, listing: str) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Templates and tested images of a list."""
    file = readable(base / listing, "DeepPCB")
    templates, tested = [], []
    for line in sorted(filter(None, file.read_text(encoding="utf-8").splitlines())):
        image, _, boxes = line.partition(" ")
        of = f"the line {line!r} of {file}"
        stem = base / image.removesuffix(".jpg")
        template, test = (readable(stem.with_name(f"{stem.name}_{kind}.jpg"), of) for kind in ("temp", "test"))
        marks = readable(base / boxes.strip(), of)
        kinds = {kind for *_, kind in _boxes(marks)}
        defect = KINDS[kinds.pop() - 1] if len(kinds) == 1 else "several"
        templates.append(Item(template.relative_to(base).as_posix(), "pcb", 0, "good", template))
        tested.append(Item(test.relative_to(base).as_posix(), "pcb", 1, defect, test, marks))
    return tuple(templates), tuple(tested)


def _boxes(file: Path) -> list[tuple[int, ...]]:
    """(x1, y1, x2, y2, kind) of each line."""
    try:
        rows = [tuple(map(int, line.split())) for line in file.read_bytes().decode().splitlines() if line.strip()]
        if not rows or any(len(row) != 5 or not 1 <= row[4] <= len(KINDS) for row in rows):
            raise ValueError("each line must be x1 y1 x2 y2 kind, with a kind from 1 to 6")
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the boxes {file} ({error}); take the published file") from error
    return rows
