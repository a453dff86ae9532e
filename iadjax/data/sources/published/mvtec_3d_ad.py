"""MVTec 3D-AD: ten objects, colour images with the 3-D position of every pixel.

Layout: <category>/{train,validation}/good/{rgb/NNN.png,xyz/NNN.tiff}, and
  <category>/test/{good,<kind>}/{rgb/NNN.png,xyz/NNN.tiff,gt/NNN.png}.
Masks: gt/NNN.png, not 0 where anomalous (good images have one too, which is all 0 and not read).
Points: float TIFF `[H, W, 3]`, 0 where nothing was measured. `points` gives millimetres: the files hold metres.
Split: published: 2,656 train, 294 validation, 249 + 948 test (good + anomalous).
Licence: CC BY-NC-SA 4.0.
Citation: Bergmann, Jin, Sattlegger, Steger: The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization,
  VISAPP 2022.
Address: https://www.mvtec.com/company/research/datasets/mvtec-3d-ad
Unchecked: that the files hold metres is inferred: public preprocessing fits the background plane with a tolerance of 0.005,
  which is senseless in millimetres. The counts of each category were not compared with the files; their sums are published.
"""

import functools
import io
from pathlib import Path

import numpy as np
import tifffile

from iadjax.data.dataset import Dataset, Item
from iadjax.data.listing import children
from iadjax.data.masks import read_coded_mask, read_item
from iadjax.data.sources.published.common import chosen, files_in, readable, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "points", "read"]

MILLIMETRES = 1000.0
COUNTS = {
    "mvtec_3d_ad": table(
        ("train", "validation", "test_good", "test_anomalous"),
        {
            "bagel": (244, 22, 22, 88),
            "cable_gland": (223, 23, 21, 87),
            "carrot": (286, 29, 27, 132),
            "cookie": (210, 22, 28, 103),
            "dowel": (288, 34, 26, 104),
            "foam": (236, 27, 20, 80),
            "peach": (361, 42, 26, 106),
            "potato": (300, 33, 22, 92),
            "rope": (298, 33, 32, 69),
            "tire": (210, 29, 25, 87),
        },
    )
}
CATEGORIES = tuple(COUNTS["mvtec_3d_ad"])
read = functools.partial(read_item, read=read_coded_mask)


def points(item: Item) -> np.ndarray:
    """The points of an item, `[H, W, 3]` float32 in millimetres; 0 where nothing was measured.

    Raises:
      UserError: the file cannot be read or holds something else (named).
    """
    file = item.xyz[0]
    try:
        xyz = tifffile.imread(io.BytesIO(file.read_bytes()))
    except (OSError, ValueError, KeyError, tifffile.TiffFileError) as error:
        raise UserError(f"cannot read the points {file} ({error}); repair or remove the file") from error
    if xyz.ndim != 3 or xyz.shape[-1] != 3:
        raise UserError(f"the points {file} must be [H, W, 3], got {xyz.shape}; repair or remove the file")
    return (xyz * MILLIMETRES).astype(np.float32)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names; `Item.xyz` is the TIFF with the points."""
    base = root_of(name, root, "bagel, cable_gland, ...")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / each)
    train, validation, test = [], [], []
    for each in categories:
        train += _items(base, base / each / "train/good", each, "good")
        validation += _items(base, base / each / "validation/good", each, "good")
        for kind in [path.name for path in children(base / each / "test") if path.is_dir()]:
            test += _items(base, base / each / "test" / kind, each, kind)
    return Dataset(name, categories, tuple(train), tuple(test), read, True, tuple(validation), points=points)


def _items(base: Path, directory: Path, category: str, kind: str) -> list[Item]:
    items = []
    for file in files_in(directory / "rgb"):
        of = f"the image {file}"
        xyz = readable(directory / "xyz" / f"{file.stem}.tiff", of)
        mask = readable(directory / "gt" / f"{file.stem}.png", of) if kind != "good" else None
        path = file.relative_to(base).as_posix()
        items.append(Item(path, category, int(kind != "good"), kind, file, mask, xyz=(xyz,)))
    return items
