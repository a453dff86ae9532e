"""NEU-DET: six kinds of defects on hot-rolled steel, grey images of 200 x 200 pixels, all of them defective.

Layout: IMAGES/<kind>_<number>.jpg and ANNOTATIONS/<kind>_<number>.xml (Pascal VOC: bndbox with xmin, ymin, xmax, ymax from 1).
Masks: drawn from the boxes, corners included.
Split: none published with this layout, and there are no normal images: all 1,800 (300 of each kind) are test images, and
  fitting a detector on this set is refused. It serves to look at defects, and as anomalies of other experiments.
Licence: not stated; published for research.
Citation: Song, Yan: A noise robust method based on completed local binary patterns for hot-rolled steel strip surface defects,
  Applied Surface Science 285, 2013; He, Song, Meng, Yan: An End-to-end Steel Surface Defect Detection Approach via Fusing
  Multiple Hierarchical Features, IEEE TIM 69, 2020.
Address: http://faculty.neu.edu.cn/songkechen/zh_CN/zdylm/263270/list/
Unchecked: a copy that was compared splits off 30 images into other folders; the layout of other copies (train/ and validation/)
  is not read. Coordinates in the files run from 1 to 200.
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.data.images import read_image
from iadjax.data.sources.folder import select_categories
from iadjax.data.sources.published.boxes import draw_boxes
from iadjax.data.sources.published.common import files_in, readable, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

KINDS = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
CATEGORIES = ("hot_rolled_steel",)
COUNTS = {"neu_det": table(("train", "test_good", "test_anomalous"), {"hot_rolled_steel": (0, 0, 1800)})}


def read(item: Item, image: Callable[[Path], np.ndarray] = read_image) -> tuple[np.ndarray, np.ndarray]:
    """Image, and the mask that its boxes make."""
    pixels = image(item.file)
    return pixels, draw_boxes(_boxes(item.mask), pixels.shape[:2], item.mask)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index; the kind of defect is the name of the file."""
    base = root_of(name, root, "IMAGES and ANNOTATIONS")
    categories = select_categories(category, CATEGORIES)
    items = []
    for file in files_in(base / "IMAGES"):
        kind = file.stem.rpartition("_")[0]
        if kind not in KINDS:
            raise UserError(f"the image {file} is of no known kind ({', '.join(KINDS)}); remove or rename it")
        marks = readable(base / "ANNOTATIONS" / f"{file.stem}.xml", f"the image {file}")
        items.append(Item(file.relative_to(base).as_posix(), categories[0], 1, kind, file, marks))
    if not items:
        raise UserError(f"{base / 'IMAGES'} holds no images; complete the data set")
    return Dataset(name, categories, (), tuple(items), read, True)


def _boxes(file: Path) -> list[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of each object, from 0, right and bottom outside."""
    try:
        # Expat bounds what entities expand to, and loads no external ones
        found = [
            [int(float(box.findtext(key, ""))) for key in ("xmin", "ymin", "xmax", "ymax")]
            for box in ET.fromstring(file.read_bytes()).iter("bndbox")  # noqa: S314
        ]
    except (OSError, ValueError, ET.ParseError) as error:
        raise UserError(f"cannot read the boxes {file} ({error}); take the published file") from error
    if not found:
        raise UserError(f"the annotation {file} marks no defect; take the published file")
    return [(left - 1, top - 1, right, bottom) for left, top, right, bottom in found]
