"""The built-in data set: six categories of drawn images, with defects and exact masks. It needs no files.

Three textures (fabric, granite, wood) and three objects (capsule, circuit, washer), 256 x 256. Every image is a function of
its path alone, so it is the same on every machine with the same NumPy.
"""

import hashlib
from functools import lru_cache

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.data.sources.folder import select_categories
from iadjax.data.sources.synthetic.canvas import light
from iadjax.data.sources.synthetic.objects import CAPSULE, CIRCUIT, WASHER
from iadjax.data.sources.synthetic.textures import FABRIC, GRANITE, WOOD

__all__ = ["CATEGORIES", "render", "synthetic"]

CATEGORIES = {"capsule": CAPSULE, "circuit": CIRCUIT, "fabric": FABRIC, "granite": GRANITE, "washer": WASHER, "wood": WOOD}
TRAIN, GOOD, DEFECTIVE = 60, 20, 8
"""Images per category: for training, normal ones for test, and for each kind of defect."""


def synthetic(category: str = "all") -> Dataset:
    """The index of one category, of several with commas, or of "all"; images are drawn when they are read."""
    names = select_categories(category, sorted(CATEGORIES))
    train, test = [], []
    for name in names:
        train += [Item(f"{name}/train/good/{i:03d}.png", name, 0, "good") for i in range(TRAIN)]
        test += [Item(f"{name}/test/good/{i:03d}.png", name, 0, "good") for i in range(GOOD)]
        for defect in sorted(CATEGORIES[name][1]):
            test += [Item(f"{name}/test/{defect}/{i:03d}.png", name, 1, defect) for i in range(DEFECTIVE)]
    return Dataset("synthetic", names, tuple(train), tuple(test), lambda item: render(item.path), has_masks=True)


# all images fit; with fewer, a second pass in order would find none; 180 MB
@lru_cache(maxsize=1024)
def render(path: str) -> tuple[np.ndarray, np.ndarray]:
    """The image `[256, 256, 3]` uint8 and mask `[256, 256]` uint8 of a path like "wood/test/scratch/003.png"."""
    name, _, defect, _ = path.split("/")
    draw, kinds = CATEGORIES[name]
    rng = np.random.default_rng(np.frombuffer(hashlib.sha256(path.encode()).digest(), np.uint32))
    image, where = draw(rng)
    mask = np.zeros(where.shape, bool)
    if defect != "good":
        image, mask = kinds[defect](rng, image, where)
    image = np.round(255 * np.clip(light(rng, image), 0, 1)).astype(np.uint8)
    mask = mask.astype(np.uint8)
    # the cache hands out the same arrays again
    image.flags.writeable = mask.flags.writeable = False
    return image, mask
