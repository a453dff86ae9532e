"""MVTec AD: 15 objects and textures, 73 kinds of defects.

Layout: <category>/train/good/NNN.png, <category>/test/{good,<kind>}/NNN.png, <category>/ground_truth/<kind>/NNN_mask.png.
Masks: 0 and 255. Images of 700 to 1024 pixels; grid, screw and zipper are grey.
Split: published: 3,629 train, 467 + 1,258 test (good + anomalous).
Licence: CC BY-NC-SA 4.0.
Citation: Bergmann, Batzner, Fauser, Sattlegger, Steger: The MVTec Anomaly Detection Dataset, IJCV 129, 2021; CVPR 2019.
Address: https://www.mvtec.com/company/research/datasets/mvtec-ad
Unchecked: nothing.
"""

from pathlib import Path

from iadjax.data.dataset import Dataset
from iadjax.data.masks import read_item
from iadjax.data.sources.folder import mvtec_layout
from iadjax.data.sources.published.common import chosen, root_of, table
from iadjax.errors import UserError

__all__ = ["CATEGORIES", "COUNTS", "index", "published_mvtec_layout", "read"]

read = read_item
COUNTS = {
    "mvtec_ad": table(
        ("train", "test_good", "test_anomalous"),
        {
            "bottle": (209, 20, 63),
            "cable": (224, 58, 92),
            "capsule": (219, 23, 109),
            "carpet": (280, 28, 89),
            "grid": (264, 21, 57),
            "hazelnut": (391, 40, 70),
            "leather": (245, 32, 92),
            "metal_nut": (220, 22, 93),
            "pill": (267, 26, 141),
            "screw": (320, 41, 119),
            "tile": (230, 33, 84),
            "toothbrush": (60, 12, 30),
            "transistor": (213, 60, 40),
            "wood": (247, 19, 60),
            "zipper": (240, 32, 119),
        },
    )
}
CATEGORIES = tuple(COUNTS["mvtec_ad"])


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the categories that `category` names."""
    return published_mvtec_layout(name, root, category, CATEGORIES)


def published_mvtec_layout(name: str, root: str | Path, category: str, known: tuple[str, ...]) -> Dataset:
    """A data set in this layout, where every anomalous image must have a mask.

    Raises:
      UserError: a missing folder, category or mask (named).
    """
    base = root_of(name, root, f"{known[0]}, {known[1]}, ...")
    categories = chosen(name, base, category, known, lambda each: base / each)
    dataset = mvtec_layout(name, {each: base / each for each in categories}, several=True)
    for item in dataset.test:
        if item.label and item.mask is None:
            raise UserError(
                f"the image {item.file} has no mask: {base / item.category / 'ground_truth' / item.defect} is missing or "
                "holds none; complete the data set"
            )
    return dataset
