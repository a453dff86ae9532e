"""Eyecandies: ten kinds of rendered sweets, colour images in six lights with depth and normals, 512 x 512 pixels.

Layout: <Category>/{train,val,test_public,test_private}/data/NNN_image_{0..5}.png, NNN_depth.png (16 bits), NNN_info_depth.yaml
  (normalization: min and max in metres), NNN_metadata.yaml (anomalous: 0 or 1), NNN_mask.png and one mask per kind
  (bumps, dents, colors, normals).
Masks: NNN_mask.png, not 0 where anomalous. The kind of defect is that of the keys bumps, dents, colors, normals of the metadata
  that are 1, joined by "+"; "anomalous" if there is none.
Points: from the depth by the published pinhole camera (focal length 711.11 pixels, centre in the middle of the image), in the
  camera's frame and in millimetres.
Images: image_5, the one in global light.
Split: published: per category 1000 train, 100 val, 25 + 25 test_public (normal + anomalous), 400 test_private without labels,
  which are not read.
Licence: not stated on the project's pages; ask before any use but research.
Citation: Bonfiglioli, Toschi, Silvestri, Fioraio, De Gregorio: The Eyecandies Dataset for Unsupervised Multimodal Anomaly
  Detection and Localization, ACCV 2022.
Address: https://eyecan-ai.github.io/eyecandies/download
Unchecked: the keys of the metadata beside "anomalous"; the images themselves were not at hand.
"""

import functools
import re
from pathlib import Path

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.data.masks import read_coded_mask, read_item, read_values
from iadjax.data.sources.published.common import chosen, files_in, readable, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "points", "read"]

FOCAL_LENGTH = 711.11
CATEGORIES = (
    "CandyCane", "ChocolateCookie", "ChocolatePraline", "Confetto", "GummyBear", "HazelnutTruffle", "LicoriceSandwich",
    "Lollipop", "Marshmallow", "PeppermintCandy",
)  # fmt: skip
COUNTS = {
    "eyecandies": table(("train", "validation", "test_good", "test_anomalous"), dict.fromkeys(CATEGORIES, (1000, 100, 25, 25)))
}
read = functools.partial(read_item, read=read_coded_mask)


def points(item: Item) -> np.ndarray:
    """The points of an item, `[H, W, 3]` float32 in millimetres in the camera's frame (x right, y down, z away from it).

    Raises:
      UserError: depth or its scale cannot be read (named).
    """
    depth_file, info_file = item.xyz
    low, high = (float(_value(info_file, key)) for key in ("min", "max"))
    depth = 1000.0 * (low + (high - low) * read_values(depth_file).astype(np.float64) / 65535)
    y, x = np.mgrid[: depth.shape[0], : depth.shape[1]]
    xyz = np.stack(
        [(x - depth.shape[1] / 2) / FOCAL_LENGTH * depth, (y - depth.shape[0] / 2) / FOCAL_LENGTH * depth, depth], axis=-1
    )
    return xyz.astype(np.float32)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names; `Item.xyz` are the depth and its scale."""
    base = root_of(name, root, "CandyCane, ChocolateCookie, ...")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / each)
    train, validation, test = ([], [], [])
    for each in categories:
        for part, items in (("train", train), ("val", validation), ("test_public", test)):
            items += _items(base, base / each / part / "data", each)
    return Dataset(name, categories, tuple(train), tuple(test), read, True, tuple(validation), points=points)


def _items(base: Path, directory: Path, category: str) -> list[Item]:
    items = []
    for file in files_in(directory, (".png",)):
        if not file.name.endswith("_image_5.png"):
            continue
        number, of = file.name.removesuffix("_image_5.png"), f"the image {file}"
        depth, info, metadata = (
            readable(directory / f"{number}_{rest}", of) for rest in ("depth.png", "info_depth.yaml", "metadata.yaml")
        )
        label = int(_value(metadata, "anomalous"))
        defect = (_kinds(metadata) or "anomalous") if label else "good"
        mask = readable(directory / f"{number}_mask.png", of) if label else None
        items.append(Item(file.relative_to(base).as_posix(), category, label, defect, file, mask, xyz=(depth, info)))
    return items


def _kinds(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    return "+".join(kind for kind in ("bumps", "dents", "colors", "normals") if re.search(rf"(?m)^{kind}:\s*1\b", text))


def _value(file: Path, key: str) -> str:
    """The number behind `key:` in a YAML file of plain keys."""
    try:
        found = re.search(rf"(?m)^\s*{key}:\s*([-+.\deE]+)\s*$", file.read_bytes().decode())
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {file} ({error}); complete the data set") from error
    if not found:
        raise UserError(f"{file} has no number under the key {key!r}; take the published file")
    return found.group(1)
