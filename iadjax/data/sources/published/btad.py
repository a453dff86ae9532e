"""BTAD: three industrial products, body and surface defects.

Layout: <01|02|03>/train/ok, <01|02|03>/test/{ok,ko}, <01|02|03>/ground_truth/ko; images and masks are .bmp or .png by category.
Masks: the name of the image, in its own suffix; 0 and 255.
Split: published: 1,799 train, 451 + 290 test (good + anomalous).
Licence: CC BY-NC-SA 4.0.
Citation: Mishra, Verk, Fornasier, Piciarelli, Foresti: VT-ADL: A Vision Transformer Network for Image Anomaly Detection and
  Localization, ISIE 2021.
Address: http://avires.dimi.uniud.it/papers/btad/btad.zip
Unchecked: the counts of each category were not compared with the files; their sums are the published ones.
"""

from pathlib import Path

from iadjax.data.dataset import Dataset
from iadjax.data.masks import read_item
from iadjax.data.sources.published.common import chosen, items_in, one_file, root_of, table

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

read = read_item
COUNTS = {
    "btad": table(("train", "test_good", "test_anomalous"), {"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)})
}
CATEGORIES = tuple(COUNTS["btad"])


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names; the one kind of defect is "ko"."""
    base = root_of(name, root, "01, 02 and 03")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / each)
    train, test = [], []
    for each in categories:
        train += items_in(base, base / each / "train/ok", each)
        test += items_in(base, base / each / "test/ok", each)
        masks = base / each / "ground_truth/ko"
        test += items_in(base, base / each / "test/ko", each, "ko", lambda file, masks=masks: one_file(masks, file.stem, file))
    return Dataset(name, categories, tuple(train), tuple(test), read, True)
