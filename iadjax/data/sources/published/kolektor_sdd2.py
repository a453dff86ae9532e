"""KolektorSDD2: defects of many kinds on one product surface, colour images of about 230 x 630 pixels.

Layout: {train,test}/NNNNN.png with the mask {train,test}/NNNNN_GT.png beside it, for normal images too.
Masks: 0 where nothing is wrong; an image is normal where the whole mask is 0, so the index reads every mask once.
Split: published, for supervised learning: 2,085 + 246 train, 894 + 110 test (normal + defective). The defective training images
  are `Dataset.anomalies`: the protocol "supervised" uses them, every other protocol leaves them out.
Licence: CC BY-NC-SA 4.0.
Citation: Bozic, Tabernik, Skocaj: Mixed supervision for surface-defect detection: from weakly to fully supervised learning,
  Computers in Industry 129, 2021.
Address: https://www.vicos.si/resources/kolektorsdd2/
Unchecked: the images themselves were not at hand.
"""

import re
from pathlib import Path

from iadjax.data.dataset import Dataset
from iadjax.data.sources.folder import select_categories
from iadjax.data.sources.published.common import files_in, readable, root_of, table
from iadjax.data.sources.published.kolektor_sdd import items_by_mask, read

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

CATEGORIES = ("surface",)
COUNTS = {"kolektor_sdd2": table(("train", "anomalies", "test_good", "test_anomalous"), {"surface": (2085, 246, 894, 110)})}


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index; the one kind of defect is "defect"."""
    base = root_of(name, root, "train and test")
    categories = select_categories(category, CATEGORIES)
    parts = {}
    for part in ("train", "test"):
        # copies of masks ("10301_GT(1).png") are no images
        files = [file for file in files_in(base / part, (".png",)) if re.fullmatch(r"\d+", file.stem)]
        pairs = [(file, readable(file.with_name(f"{file.stem}_GT.png"), f"the image {file}")) for file in files]
        parts[part] = items_by_mask(base, pairs, categories[0], "defect")
    train = tuple(item for item in parts["train"] if not item.label)
    anomalies = tuple(item for item in parts["train"] if item.label)
    return Dataset(name, categories, train, tuple(parts["test"]), read, True, anomalies=anomalies)
