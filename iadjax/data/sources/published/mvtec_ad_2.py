"""MVTec AD 2: eight hard scenes (transparent, reflecting, bulk goods) under several lights.

Layout: <category>/{train,validation}/good/NNN_<light>.png, <category>/test_public/{good,bad}/NNN_<light>.png,
  <category>/test_public/ground_truth/bad/NNN_<light>_mask.png, and without labels
  <category>/test_private/NNN_<light>.png, <category>/test_private_mixed/NNN_<light>.png.
Masks: 0 and 255.
Split: published. "mvtec_ad_2" tests on the public part; "mvtec_ad_2_private" has the unlabelled images of both private parts as
  its test: label 0, defect "unknown", no masks, so that maps can be computed but metrics mean nothing. Their maps are judged by
  a server; `scripts/submission.py` writes the folders that it takes. Over 8,000 images in all.
Licence: CC BY-NC-SA 4.0.
Citation: Heckler-Kram, Neudeck, Scheler, Koenig, Steger: The MVTec AD 2 Dataset: Advanced Scenarios for Unsupervised Anomaly
  Detection, arXiv 2503.21622, 2025.
Address: https://www.mvtec.com/company/research/datasets/mvtec-ad-2 ; server: https://benchmark.mvtec.com
Unchecked: the counts of each category are those of a public listing of the files, 8,004 in all; the images themselves were
  not at hand.
"""

from pathlib import Path

from iadjax.data.dataset import Dataset
from iadjax.data.masks import read_item
from iadjax.data.sources.published.common import chosen, items_in, one_file, root_of, table

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

read = read_item
# train, validation, good and bad of the public test, each of the private tests
_IMAGES = {
    "can": (412, 46, 72, 90, 321),
    "fabric": (387, 43, 66, 90, 314),
    "fruit_jelly": (263, 37, 20, 60, 255),
    "rice": (313, 35, 42, 90, 277),
    "sheet_metal": (137, 19, 24, 90, 142),
    "vial": (291, 41, 35, 105, 276),
    "wallplugs": (293, 33, 60, 90, 232),
    "walnuts": (432, 48, 60, 90, 228),
}
CATEGORIES = tuple(_IMAGES)
COUNTS = {
    "mvtec_ad_2": table(
        ("train", "validation", "test_good", "test_anomalous"), {name: row[:4] for name, row in _IMAGES.items()}
    ),
    # unlabelled, which counts as good
    "mvtec_ad_2_private": table(
        ("train", "validation", "test_good"), {name: (*row[:2], 2 * row[4]) for name, row in _IMAGES.items()}
    ),
}
PRIVATE = ("test_private", "test_private_mixed")


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names."""
    base = root_of(name, root, "can, fabric, ...")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / each)
    private = name == "mvtec_ad_2_private"
    train, validation, test = [], [], []
    for each in categories:
        train += items_in(base, base / each / "train/good", each)
        validation += items_in(base, base / each / "validation/good", each)
        if private:
            for part in PRIVATE:
                test += [item._replace(defect="unknown") for item in items_in(base, base / each / part, each)]
            continue
        public = base / each / "test_public"
        test += items_in(base, public / "good", each)
        masks = public / "ground_truth/bad"
        test += items_in(
            base, public / "bad", each, "bad", lambda file, masks=masks: one_file(masks, f"{file.stem}_mask", file)
        )
    return Dataset(name, categories, tuple(train), tuple(test), read, not private, tuple(validation))
