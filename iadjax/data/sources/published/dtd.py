"""DTD, describable textures: 47 kinds of textures, 120 images each; a source of textures, not an anomaly data set.

Layout: images/<texture>/<texture>_NNNN.jpg.
Masks: none.
Split: none is used: all 5,640 images are training images, and there is nothing to test on. For synthesis (DRAEM and others)
  give the folder itself, like detector.textures=DIR/images; the index serves to prepare and inspect it.
Licence: not stated; published for research.
Citation: Cimpoi, Maji, Kokkinos, Mohamed, Vedaldi: Describing Textures in the Wild, CVPR 2014.
Address: https://www.robots.ox.ac.uk/~vgg/data/dtd/
Unchecked: the images themselves were not at hand.
"""

from pathlib import Path

from iadjax.data.dataset import Dataset
from iadjax.data.masks import read_item
from iadjax.data.sources.published.common import chosen, items_in, root_of, table

__all__ = ["CATEGORIES", "COUNTS", "index", "read"]

read = read_item
CATEGORIES = (
    "banded", "blotchy", "braided", "bubbly", "bumpy", "chequered", "cobwebbed", "cracked", "crosshatched", "crystalline",
    "dotted", "fibrous", "flecked", "freckled", "frilly", "gauzy", "grid", "grooved", "honeycombed", "interlaced", "knitted",
    "lacelike", "lined", "marbled", "matted", "meshed", "paisley", "perforated", "pitted", "pleated", "polka-dotted", "porous",
    "potholed", "scaly", "smeared", "spiralled", "sprinkled", "stained", "stratified", "striped", "studded", "swirly",
    "veined", "waffled", "woven", "wrinkled", "zigzagged",
)  # fmt: skip
COUNTS = {"dtd": table(("train",), dict.fromkeys(CATEGORIES, (120,)))}


def index(name: str, root: str | Path, category: str) -> Dataset:
    """The index of the textures that `category` names."""
    base = root_of(name, root, "images")
    categories = chosen(name, base, category, CATEGORIES, lambda each: base / "images" / each)
    train = [item for each in categories for item in items_in(base, base / "images" / each, each)]
    return Dataset(name, categories, tuple(train), (), read, False)
