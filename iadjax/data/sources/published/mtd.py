"""MTD, magnetic tile defects: grey images of one product, five kinds of defects.

Layout: MT_<Free|Blowhole|Break|Crack|Fray|Uneven>/Imgs/<name>.jpg with the mask <name>.png beside it (empty for MT_Free).
Masks: nearly binary; 1 above 127. Four of MT_Uneven mark nothing (exp3_num_45042, exp4_num_124690, exp4_num_352527,
  exp4_num_45057).
Split: none published. Here: sorted by name, every fifth normal image (index % 5 == 0) is for test, and so is every defective
  one: 761 train, 191 + 392 test, from 952 + 392 images. "mtd_300" is a quick subset: the first 200 training images, the
  first 100 normal test images and the first 20 of each kind of defect.
Licence: not stated; published for research.
Citation: Huang, Qiu, Yuan: Surface defect saliency of magnetic tile, The Visual Computer 36, 2020.
Address: https://github.com/abin24/Magnetic-tile-defect-datasets.
Unchecked: nothing; layout and counts were compared with the published files.
"""

from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.masks import read_item
from iadjax.data.sources.folder import select_categories
from iadjax.data.sources.published.common import files_in, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

read = read_item
KINDS = ("Blowhole", "Break", "Crack", "Fray", "Uneven")
CATEGORIES = ("magnetic_tile",)
COUNTS = {
    "mtd": table(("train", "test_good", "test_anomalous"), {"magnetic_tile": (761, 191, 392)}),
    "mtd_300": table(("train", "test_good", "test_anomalous"), {"magnetic_tile": (200, 100, 100)}),
}


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index; "mtd_300" is 200 train and 200 test images of it."""
    base = root_of(name, root, "MT_Free, MT_Crack, ...")
    categories = select_categories(category, CATEGORIES)
    normal = _items(base, "Free")
    train = [item for i, item in enumerate(normal) if i % 5]
    test = normal[::5]
    defects = {kind: _items(base, kind) for kind in KINDS}
    if name == "mtd_300":
        train, test = train[:200], test[:100]
        defects = {kind: items[:20] for kind, items in defects.items()}
    test = test + [item for items in defects.values() for item in items]
    return Dataset(name, categories, tuple(train), tuple(test), read, True)


def _items(base: Path, kind: str) -> list[Item]:
    directory = base / f"MT_{kind}" / "Imgs"
    files = files_in(directory, (".jpg",)) if directory.is_dir() else []
    if not files:
        raise UserError(f"{directory} is missing or holds no .jpg; give the folder of MTD with --config.data.root=DIR")
    label = int(kind != "Free")
    items = []
    for file in files:
        mask = file.with_suffix(".png") if label else None
        if mask and not mask.is_file():
            raise UserError(f"the image {file} has no mask {mask.name} beside it; complete the data set")
        defect = kind.lower() if label else "good"
        items.append(Item(f"MT_{kind}/Imgs/{file.name}", CATEGORIES[0], label, defect, file, mask))
    return items
