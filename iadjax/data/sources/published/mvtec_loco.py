"""MVTec LOCO AD: five scenes with structural and logical anomalies, 89 kinds.

Layout: <category>/{train,validation}/good/NNN.png, <category>/test/{good,logical_anomalies,structural_anomalies}/NNN.png,
  <category>/ground_truth/<logical_anomalies|structural_anomalies>/NNN/{000,001,...}.png, <category>/defects_config.json.
Masks: one file per defect of the image, 0 or the pixel value of its kind; `defects_config.json` gives each pixel value the
  area from which the defect counts as found (see `iadjax.metrics.read_defects_config`). A mask is 1 where a value is not 0.
Split: published: 1,772 train, 304 validation (good), 575 + 993 test (good + anomalous: 561 logical, 432 structural).
Licence: CC BY-NC-SA 4.0.
Citation: Bergmann, Batzner, Fauser, Sattlegger, Steger: Beyond Dents and Scratches: Logical Constraints in Unsupervised
  Anomaly Detection and Localization, IJCV 130, 2022.
Address: https://www.mvtec.com/company/research/datasets/mvtec-loco
Unchecked: the counts of each category were not compared with the files; their sums are the published ones.
"""

import functools
from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.defects import Defect, loco_defects, read_defects_config
from iadjax.data.masks import read_coded_mask, read_item, read_values
from iadjax.data.sources.published.common import chosen, files_in, items_in, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "SIDE_FILES", "defects", "index", "read"]

KINDS = ("logical_anomalies", "structural_anomalies")
SIDE_FILES = ("{category}/defects_config.json",)
COUNTS = {
    "mvtec_loco": table(
        ("train", "validation", "test_good", "test_anomalous"),
        {
            "breakfast_box": (351, 62, 102, 173),
            "juice_bottle": (335, 54, 94, 236),
            "pushpins": (372, 69, 138, 172),
            "screw_bag": (360, 60, 122, 219),
            "splicing_connectors": (354, 59, 119, 193),
        },
    )
}
CATEGORIES = tuple(COUNTS["mvtec_loco"])
read = functools.partial(read_item, read=read_coded_mask)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names; `Item.masks` are the files of the single defects."""
    base = root_of(name, root, "breakfast_box, juice_bottle, ...")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / each)
    train, validation, test = [], [], []
    for each in categories:
        train += items_in(base, base / each / "train/good", each)
        validation += items_in(base, base / each / "validation/good", each)
        test += items_in(base, base / each / "test/good", each)
        for kind in KINDS:
            for item in items_in(base, base / each / "test" / kind, each, kind):
                masks = _masks(base / each / "ground_truth" / kind / item.file.stem, item.file)
                test.append(item._replace(mask=masks[0], masks=masks))
    return Dataset(
        name, categories, tuple(train), tuple(test), read, True, tuple(validation), defects=functools.partial(defects, base)
    )


def _masks(directory: Path, image: Path) -> tuple[Path, ...]:
    masks = tuple(files_in(directory, (".png",))) if directory.is_dir() else ()
    if not masks:
        raise UserError(f"the image {image} has no masks: {directory} is missing or holds no .png; complete the data set")
    return masks


def defects(root: Path, item: Item) -> list[Defect]:
    """The single defects of an image of the data set in `root`, with their saturation areas; none for a good one.

    Raises:
      UserError: `defects_config.json` of the category or a mask cannot be read, or they do not fit.
    """
    if not item.masks:
        return []
    config = read_defects_config(root / SIDE_FILES[0].format(category=item.category))
    return loco_defects([read_values(file) for file in item.masks], config)
