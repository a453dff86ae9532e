"""DAGM 2007: ten kinds of artificial textures with one kind of defect each, grey images of 512 x 512 pixels.

Layout: Class<1-10>/{Train,Test}/NNNN.PNG, and for defective images Class<1-10>/{Train,Test}/Label/NNNN_label.PNG.
Masks: a coarse ellipse around the defect, not 0 inside. An image without a mask is normal.
Split: published, for supervised learning: 7,004 + 1,046 train, 6,996 + 1,054 test (normal + defective). The defective training
  images are `Dataset.anomalies`: the protocol "supervised" uses them, every other protocol leaves them out.
Licence: not stated where it is hosted; made for the DAGM 2007 competition: ask before any use but research.
Citation: Wieler, Hahn: Weakly Supervised Learning for Industrial Optical Inspection, DAGM Symposium 2007.
Address: https://hci.iwr.uni-heidelberg.de/content/weakly-supervised-learning-industrial-optical-inspection
Unchecked: the counts of each class were not compared with the files; their sums are the published ones. Label/Labels.txt is
  not read.
"""

import functools
from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.masks import read_coded_mask, read_item
from iadjax.data.sources.published.common import chosen, files_in, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

_DEFECTIVE = {1: (79, 71), 2: (66, 84), 3: (66, 84), 4: (82, 68), 5: (70, 80), 6: (83, 67)} | dict.fromkeys(
    (7, 8, 9, 10), (150, 150)
)
COUNTS = {
    "dagm": table(
        ("train", "anomalies", "test_good", "test_anomalous"),
        {
            # 575 images in each part of the first six classes, 1,150 in those of the others
            f"Class{i}": ((575 if i < 7 else 1150) - train, train, (575 if i < 7 else 1150) - test, test)
            for i, (train, test) in _DEFECTIVE.items()
        },
    )
}
CATEGORIES = tuple(COUNTS["dagm"])
read = functools.partial(read_item, read=read_coded_mask)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names; the one kind of defect of a class is "defect"."""
    base = root_of(name, root, "Class1, Class2, ...")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / each)
    train, test = [], []
    for each in categories:
        train += _items(base, base / each / "Train", each)
        test += _items(base, base / each / "Test", each)
    normal = tuple(item for item in train if not item.label)
    anomalies = tuple(item for item in train if item.label)
    return Dataset(name, categories, normal, tuple(test), read, True, anomalies=anomalies)


def _items(base: Path, directory: Path, category: str) -> list[Item]:
    files = files_in(directory, (".png",))
    labels = {file.stem[: -len("_label")]: file for file in files_in(directory / "Label", (".png",))}
    lost = sorted(set(labels) - {file.stem for file in files})
    if lost:
        raise UserError(f"the mask {labels[lost[0]]} belongs to no image of {directory}; complete the data set")
    return [
        Item(
            file.relative_to(base).as_posix(),
            category,
            int(file.stem in labels),
            "defect" if file.stem in labels else "good",
            file,
            labels.get(file.stem),
        )
        for file in files
    ]
