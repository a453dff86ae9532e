"""Images in folders: the MVTec AD layout, or plain directories of normal and abnormal images."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.data.images import SUFFIXES
from iadjax.data.masks import MaskReader, read_item
from iadjax.errors import UserError, did_you_mean

__all__ = ["folder", "mvtec_layout", "plain_directories", "select_categories"]


def folder(
    root: str = "",
    category: str = "",
    normal: str = "",
    abnormal: str = "",
    masks: str = "",
    test_fraction: float = 0.2,
    mask_threshold: float | str = "auto",
    seed: int = 0,
) -> Dataset:
    """A user's own images.

    Either `root` holds the MVTec AD layout (`train/good`, `test/<type>`, `ground_truth/<type>`), itself or in one folder
    per category; or `normal`, `abnormal` and `masks` name plain directories (relative to `root` if it is given).

    Args:
      root, category, normal, abnormal, masks: see above.
      test_fraction: of the normal images in a plain directory, for test, in [0, 1).
      mask_threshold: "auto", or the number above which a value of a mask marks a defect; see `MaskReader`.
      seed: draws the normal images for test.

    Raises:
      UserError: a folder is missing or holds no images, a mask is missing or left over, or the threshold is no number.
    """
    read = functools.partial(read_item, read=MaskReader(mask_threshold))
    return _indexed(root, category, normal, abnormal, masks, test_fraction, seed)._replace(read=read)


def _indexed(root: str, category: str, normal: str, abnormal: str, masks: str, test_fraction: float, seed: int) -> Dataset:
    if normal:
        base = Path(root).expanduser() if root else Path()
        return plain_directories(
            base / normal, base / abnormal if abnormal else None, base / masks if masks else None, test_fraction, seed
        )
    if not root:
        raise UserError("the folder data set needs --config.data.root=DIR (MVTec AD layout) or --config.data.normal=DIR")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise UserError(f"there is no folder {base}; give an existing one with --config.data.root=DIR")
    if (base / "train").is_dir() and category in ("", "all"):
        return mvtec_layout("folder", {base.resolve().name: base})
    found = sorted(child.name for child in base.iterdir() if (child / "train" / "good").is_dir())
    if not found:
        raise UserError(f"{base} holds no images in the MVTec AD layout: there is no train/good in it or in its folders")
    return mvtec_layout("folder", {name: base / name for name in select_categories(category, found)})


def select_categories(category: str, known: Sequence[str]) -> tuple[str, ...]:
    """The categories that a config names: one, several with commas, or "all"."""
    if category in ("", "all"):
        if category == "" and len(known) > 1:
            raise UserError(f"data.category is empty: name one, several with commas, or 'all'; valid names: {', '.join(known)}")
        return tuple(known)
    names = tuple(name.strip() for name in category.split(","))
    for name in names:
        if name not in known:
            raise UserError(f"there is no category {name!r}; {did_you_mean(name, known)}")
    return names


def mvtec_layout(name: str, roots: dict[str, Path], several: bool | None = None) -> Dataset:
    """Categories in the layout of MVTec AD; `roots` maps each category to its folder.

    `several`: whether the paths of the items begin with the category; by default where there are several.
    """
    train, test = [], []
    several = len(roots) > 1 if several is None else several
    for category, root in roots.items():
        prefix = f"{category}/" if several else ""
        good = images_in(root / "train" / "good", root)
        if not good:
            raise UserError(f"there are no good images to fit on: {root / 'train' / 'good'} is missing or holds no images")
        train += [Item(f"{prefix}train/good/{file.name}", category, 0, "good", file) for file in good]
        test += _test_items(root, category, prefix)
    has_masks = any(item.mask for item in test)
    return Dataset(name, tuple(roots), tuple(train), tuple(test), read_item, has_masks)


def _test_items(root: Path, category: str, prefix: str) -> list[Item]:
    items = []
    truth = root / "ground_truth"
    defects = sorted(path.name for path in (root / "test").glob("*") if path.is_dir())
    for defect in defects:
        files = images_in(root / "test" / defect, root)
        masks = {} if defect == "good" else masks_in(truth / defect, files)
        missing = [file for file in files if file.stem not in masks]
        if defect != "good" and masks and missing:
            raise UserError(
                f"the image {missing[0]} has no mask in {truth / defect}; add {missing[0].stem}_mask.png or remove the folder"
            )
        label = int(defect != "good")
        items += [
            Item(f"{prefix}test/{defect}/{file.name}", category, label, defect, file, masks.get(file.stem)) for file in files
        ]
    for path in sorted(truth.glob("*")) if truth.is_dir() else []:
        if path.is_dir() and path.name not in defects:
            raise UserError(f"{path} holds masks, but there is no folder {root / 'test' / path.name} with their images")
    return items


def plain_directories(normal: Path, abnormal: Path | None, masks: Path | None, test_fraction: float, seed: int) -> Dataset:
    """`test_fraction` of the normal images, drawn with `seed`, and all abnormal ones are for test."""
    files = images_in(normal, normal)
    if not files:
        raise UserError(f"there are no good images to fit on: {normal} is missing or holds no images")
    if not 0 <= test_fraction < 1:
        raise UserError(f"data.test_fraction must be in [0, 1), got {test_fraction}")
    bad = images_in(abnormal, abnormal) if abnormal else []
    if abnormal and not bad:
        raise UserError(f"{abnormal} is missing or holds no images; correct data.abnormal")
    found = masks_in(masks, bad) if masks else {}
    missing = [file for file in bad if masks and file.stem not in found]
    if missing:
        raise UserError(f"the image {missing[0]} has no mask in {masks}")
    chosen = np.random.default_rng(seed).permutation(len(files))[: round(test_fraction * len(files))]
    category = normal.resolve().name
    items = [Item(f"normal/{file.relative_to(normal).as_posix()}", category, 0, "good", file) for file in files]
    held = set(chosen.tolist())
    train = tuple(item for i, item in enumerate(items) if i not in held)
    test = [item for i, item in enumerate(items) if i in held]
    test += [
        Item(f"abnormal/{file.relative_to(abnormal).as_posix()}", category, 1, "abnormal", file, found.get(file.stem))
        for file in bad
    ]
    return Dataset("folder", (category,), train, tuple(test), read_item, bool(found))


def images_in(directory: Path, root: Path) -> list[Path]:
    """Image files directly in a directory, by name; two with the same stem are an error."""
    if not directory.is_dir():
        return []
    files = sorted(path for path in directory.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    stems = {}
    for file in files:
        if file.stem in stems:
            raise UserError(
                f"{stems[file.stem]} and {file} differ in their suffix alone, so a mask cannot tell them apart; rename one"
            )
        stems[file.stem] = file
    return files


def masks_in(directory: Path, files: Sequence[Path]) -> dict[str, Path]:
    """Mask files by the stem of their image: `<stem>_mask.*` or `<stem>.*`; a mask with no image is an error."""
    stems = {file.stem for file in files}
    found = {}
    for mask in images_in(directory, directory):
        stem = mask.stem if mask.stem in stems else mask.stem.removesuffix("_mask")
        if stem not in stems:
            raise UserError(
                f"the mask {mask} belongs to no image: there is no {stem}.* beside the others; remove the mask or add the image"
            )
        if stem in found:
            raise UserError(f"{found[stem]} and {mask} are both masks of {stem}; remove one")
        found[stem] = mask
    return found
