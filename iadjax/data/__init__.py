"""Data sets by name, protocols and the input pipeline."""

from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.folder import MVTEC_AD, folder, mvtec_layout, select_categories
from iadjax.data.images import Transform, read_image
from iadjax.data.loader import batches, num_batches, pad_batch, read_transformed
from iadjax.data.mtd import mtd
from iadjax.data.protocols import Split, split
from iadjax.data.synthetic import synthetic
from iadjax.errors import UserError, did_you_mean

__all__ = [
    "NAMES",
    "Dataset",
    "Item",
    "Split",
    "Transform",
    "batches",
    "load",
    "num_batches",
    "pad_batch",
    "read_image",
    "read_transformed",
    "split",
]

NAMES = ("folder", "mtd", "mtd_300", "mvtec_ad", "synthetic")


def load(name: str, *, root: str = "", category: str = "", seed: int = 0, **options) -> Dataset:
    """The data set `name`.

    Args:
      name: one of `NAMES`.
      root: its folder; not used by "synthetic".
      category: one category, several with commas, or "all".
      seed: draws what the source leaves open (the split of plain directories).
      **options: further keywords of the source.
    """
    if name == "folder":
        return folder(root, category, seed=seed, **options)
    if name in ("mtd", "mtd_300"):
        dataset = mtd(root, subset=name == "mtd_300")
        select_categories(category, dataset.categories)
        return dataset
    if name == "mvtec_ad":
        if not root:
            raise UserError("mvtec_ad needs --config.data.root=DIR, the folder that holds bottle, cable, ...")
        categories = select_categories(category, MVTEC_AD)
        return mvtec_layout(name, {each: Path(root).expanduser() / each for each in categories})
    if name == "synthetic":
        return synthetic(category)
    raise UserError(f"there is no data set {name!r}; {did_you_mean(name, NAMES)}")
