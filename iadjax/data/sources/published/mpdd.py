"""MPDD: six kinds of painted metal parts, in changing positions and light.

Layout: that of MVTec AD: <category>/train/good, <category>/test/{good,<kind>}, <category>/ground_truth/<kind>/NNN_mask.png.
Masks: 0 and 255. Images of 1024 x 1024 pixels.
Split: published: 888 train, 176 + 282 test (good + anomalous).
Licence: CC BY-NC-SA 4.0.
Citation: Jezek, Jonak, Burget, Dvorak, Skotak: Deep learning-based defect detection of metal parts: evaluating current
  methods in complex conditions, ICUMT 2021.
Address: https://github.com/stepanje/MPDD (links to the download)
Unchecked: the counts of each category were not compared with the files; their sums are the published ones.
"""

from pathlib import Path

from iadjax.data.dataset import Dataset
from iadjax.data.masks import read_item
from iadjax.data.sources.published.common import table
from iadjax.data.sources.published.mvtec_ad import published_mvtec_layout

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

read = read_item
COUNTS = {
    "mpdd": table(
        ("train", "test_good", "test_anomalous"),
        {
            "bracket_black": (289, 32, 47),
            "bracket_brown": (185, 26, 51),
            "bracket_white": (110, 30, 30),
            "connector": (128, 30, 14),
            "metal_plate": (54, 26, 71),
            "tubes": (122, 32, 69),
        },
    )
}
CATEGORIES = tuple(COUNTS["mpdd"])


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names."""
    return published_mvtec_layout(name, root, category, CATEGORIES)
