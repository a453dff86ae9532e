"""Real-IAD: 30 objects from five directions, 151,050 images (99,721 normal, 51,329 anomalous).

Layout: realiad_<1024|512|256>/<category>/OK/Sxxxx/<image>.jpg and .../NG/<kind>/Sxxxx/<image>.jpg with the mask .png beside it;
  realiad_jsons/realiad_jsons/<category>.json (or realiad_jsons/<category>.json) with lists "train" and "test" of image_path,
  mask_path and anomaly_class, paths from the category's folder.
Masks: not 0 where anomalous.
Split: published in the JSON files: normal images for training, normal and anomalous ones for test; all five views. "real_iad"
  reads the images of 1024 pixels, "real_iad_512" and "real_iad_256" the smaller ones.
Licence: CC BY-NC-SA 4.0; the download asks for a registration.
Citation: Wang et al.: Real-IAD: A Real-World Multi-View Dataset for Benchmarking Versatile Industrial Anomaly Detection,
  CVPR 2024.
Address: https://huggingface.co/datasets/Real-IAD/Real-IAD
Unchecked: the counts of each category are not known here: their sums are compared, and the JSON files name every image, so that
  a missing one is an error. The images themselves were not at hand.
"""

import functools
import json
from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.masks import read_coded_mask, read_item
from iadjax.data.sources.published.common import chosen, root_of
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "TOTALS", "index", "read"]

CATEGORIES = (
    "audiojack", "bottle_cap", "button_battery", "end_cap", "eraser", "fire_hood", "mint", "mounts", "pcb", "phone_battery",
    "plastic_nut", "plastic_plug", "porcelain_doll", "regulator", "rolled_strip_base", "sim_card_set", "switch", "tape",
    "terminalblock", "toothbrush", "toy", "toy_brick", "transistor1", "u_block", "usb", "usb_adaptor", "vcpill",
    "wooden_beads", "woodstick", "zipper",
)  # fmt: skip
COUNTS = {name: {category: {} for category in CATEGORIES} for name in ("real_iad", "real_iad_256", "real_iad_512")}
TOTALS = {name: {"train": 36465, "test_good": 63256, "test_anomalous": 51329} for name in COUNTS}
read = functools.partial(read_item, read=read_coded_mask)


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names, in the size that `name` names."""
    size = f"realiad_{name.removeprefix('real_iad').lstrip('_') or '1024'}"
    base = root_of(name, root, f"{size} and realiad_jsons")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / size / each)
    parts = {"train": [], "anomalies": [], "test": []}
    missing = []
    for each in categories:
        for part, rows in _split(base / "realiad_jsons", each).items():
            for row in sorted(rows, key=lambda row: row["image_path"]):
                label = int(row["anomaly_class"] != "OK")
                file = base / size / each / row["image_path"]
                mask = base / size / each / str(row["mask_path"]) if label else None
                missing += [path for path in (file, mask) if path and not path.is_file()]
                item = Item(
                    file.relative_to(base).as_posix(), each, label, row["anomaly_class"] if label else "good", file, mask
                )
                parts["anomalies" if part == "train" and label else part].append(item)
    if missing:
        names = ", ".join(map(str, missing[:3]))
        raise UserError(f"{len(missing)} files that the split of {name} lists are missing, like {names}; complete the data set")
    return Dataset(
        name, categories, tuple(parts["train"]), tuple(parts["test"]), read, True, anomalies=tuple(parts["anomalies"])
    )


def _split(directory: Path, category: str) -> dict[str, list[dict[str, str]]]:
    inner = directory / "realiad_jsons" / f"{category}.json"
    file = inner if inner.is_file() else directory / f"{category}.json"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        split = {part: found[part] for part in ("train", "test")}
        for row in split["train"] + split["test"]:
            # touched here, so that a row without a key is an error of the file
            row["image_path"], row["mask_path"], row["anomaly_class"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"cannot read {file} as a split of Real-IAD ({error!r}); take the published file") from error
    return split
