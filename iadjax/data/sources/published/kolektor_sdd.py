"""KolektorSDD: cracks on 50 plastic commutators, grey images of about 500 x 1250 pixels.

Layout: kosNN/PartN.jpg with the mask kosNN/PartN_label.bmp beside it, for normal images too.
Masks: 0 where nothing is wrong; an image is normal where the whole mask is 0, so the index reads every mask once.
Split: the published folds are for supervised learning. Here: sorted by path, every fifth normal image (index % 5 == 0) is for
  test, and so is every defective one: 277 train, 70 + 52 test, from 347 + 52 images.
Licence: CC BY-NC-SA 4.0.
Citation: Tabernik, Sela, Skvarc, Skocaj: Segmentation-Based Deep-Learning Approach for Surface-Defect Detection, Journal of
  Intelligent Manufacturing 31, 2020.
Address: https://www.vicos.si/resources/kolektorsdd/
Unchecked: nothing of the layout; the images themselves were not at hand.
"""

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.masks import read_coded_mask, read_item
from iadjax.data.sources.folder import select_categories
from iadjax.data.sources.published.common import files_in, readable, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "items_by_mask", "read"]

CATEGORIES = ("commutator",)
COUNTS = {"kolektor_sdd": table(("train", "test_good", "test_anomalous"), {"commutator": (277, 70, 52)})}
read = functools.partial(read_item, read=read_coded_mask)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index; the one kind of defect is "crack"."""
    base = root_of(name, root, "kos01, kos02, ...")
    categories = select_categories(category, CATEGORIES)
    folders = sorted(path for path in base.glob("kos*") if path.is_dir())
    if not folders:
        raise UserError(f"{base} holds no folder kos01, kos02, ...; give the one of {name} with --config.data.root=DIR")
    files = [file for folder in folders for file in files_in(folder, (".jpg",))]
    pairs = [(file, readable(file.with_name(f"{file.stem}_label.bmp"), f"the image {file}")) for file in files]
    items = items_by_mask(base, pairs, categories[0], "crack")
    normal = [item for item in items if not item.label]
    train = tuple(item for i, item in enumerate(normal) if i % 5)
    test = normal[::5] + [item for item in items if item.label]
    return Dataset(name, categories, train, tuple(test), read, True)


def items_by_mask(base: Path, pairs: list[tuple[Path, Path]], category: str, defect: str) -> list[Item]:
    """Items of (image, mask) files; those whose mask is all 0 are normal."""
    with ThreadPoolExecutor() as pool:
        marked = list(pool.map(lambda pair: bool(read_coded_mask(pair[1]).any()), pairs))
    return [
        Item(file.relative_to(base).as_posix(), category, int(bad), defect if bad else "good", file, mask if bad else None)
        for (file, mask), bad in zip(pairs, marked, strict=True)
    ]
