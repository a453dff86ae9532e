"""`Dataset`, which every source of images makes: a list of items for each part, and a function that reads one."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from iadjax.data.defects import Defect

__all__ = ["Dataset", "Item", "read"]


class Item(NamedTuple):
    """One image of a data set, not yet read.

    Attributes:
      path: its name in `scores.csv`: relative to the root, with forward slashes; unique in the data set.
      category: the product or texture it shows.
      label: 0 normal, 1 anomalous.
      defect: the kind of defect; "good" if normal.
      file: the image file, or None if the source makes the image.
      mask: the mask file (or the annotation that a mask is drawn from), or None.
      masks: every mask file, where one image has several; `mask` is the first of them.
      xyz: the files of the 3-D points of an RGB-D image; empty for a plain image.
      tile: (top, left) of the tile that the item stands for, after resize and crop; None: the whole image.
      rotation: degrees by which it is rotated counter-clockwise after reading, before any resize (the copies of "few_shot");
        its path ends in them.

    A file is a path, or a hashable object with `read_bytes()` whose text is its name.
    """

    path: str
    category: str
    label: int
    defect: str
    file: Path | None = None
    mask: Path | None = None
    masks: tuple[Path, ...] = ()
    xyz: tuple[Path, ...] = ()
    rotation: float = 0.0
    tile: tuple[int, int] | None = None


class Dataset(NamedTuple):
    """An index of images and how to read them.

    Attributes:
      name: its name in configs.
      categories: the categories in use.
      train: normal images.
      test: normal and anomalous images.
      read: `item -> (image [H, W, 3], mask [H, W] uint8 in {0, 1})`; the image is uint8 (0 to 255) or, where the file
        has more depth, float32 in [0, 1].
      has_masks: whether anomalous images have masks.
      validation: normal images that the published split holds out; empty where it holds out none.
      anomalies: labelled anomalous images of the published training part (supervised splits); they are not in `test`.
      points: `item -> xyz [H, W, 3]` float32 in millimetres, 0 where nothing was measured; None for plain images.
      defects: `item -> list of Defect`, the single defects of an image with their saturation areas, for sPRO; empty for a
        good image. None where the data set does not tell defects apart.
      auxiliary: labelled images of another data set that a zero-shot detector is trained on, see `auxiliary.with_auxiliary`.
      left_out: (path, why) of files that look like data and are not read.
    """

    name: str
    categories: tuple[str, ...]
    train: tuple[Item, ...]
    test: tuple[Item, ...]
    read: Callable[[Item], tuple[np.ndarray, np.ndarray]]
    has_masks: bool
    validation: tuple[Item, ...] = ()
    anomalies: tuple[Item, ...] = ()
    points: Callable[[Item], np.ndarray] | None = None
    defects: Callable[[Item], list[Defect]] | None = None
    left_out: tuple[tuple[str, str], ...] = ()
    auxiliary: tuple[Item, ...] = ()


def read(dataset: Dataset, item: Item) -> tuple[np.ndarray, np.ndarray]:
    """Image and mask of an item as `Dataset.read` gives them, rotated by `item.rotation` at the original resolution.

    The size stays. The centre is that of the pixels, ((W - 1) / 2, (H - 1) / 2); images are bilinear, masks nearest neighbour,
    both mirrored at the edges without repeating the edge pixel.
    """
    if not item.rotation:
        return dataset.read(item)
    image, mask = dataset.read(item._replace(path=item.path.removesuffix(f"@{item.rotation:g}"), rotation=0.0))
    image = ndimage.rotate(image, item.rotation, axes=(1, 0), reshape=False, order=1, mode="mirror")
    return image, ndimage.rotate(mask, item.rotation, axes=(1, 0), reshape=False, order=0, mode="mirror")
