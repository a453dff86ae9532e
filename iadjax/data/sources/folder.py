"""Images in folders: the MVTec AD layout, or plain directories of normal and abnormal images."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iadjax.data.dataset import Dataset, Item
from iadjax.data.images import SUFFIXES
from iadjax.data.listing import NORMAL, children, files_below, images_below, is_normal, left_out
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
    per category; or `normal`, `abnormal` and `masks` name plain directories (relative to `root` if it is given). Folders
    below are read too, and a mask lies in the same one as its image. `iadjax.data.listing` says what is ignored and which
    names of folders are normal.

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
        folders = [base / Path(each).expanduser() if each else None for each in (normal, abnormal, masks)]
        return plain_directories(*folders, test_fraction, seed)
    if not root:
        raise UserError("the folder data set needs --config.data.root=DIR (MVTec AD layout) or --config.data.normal=DIR")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise UserError(f"there is no folder {base}; give an existing one with --config.data.root=DIR")
    if (base / "train").is_dir() and category in ("", "all"):
        return mvtec_layout("folder", {base.resolve().name: base})
    folders = [child for child in children(base) if child.is_dir()]
    found = [child.name for child in folders if _normal_folders(child / "train")]
    if not found:
        here = sum(path.suffix.lower() in SUFFIXES for path in children(base))
        hint = f"; for its own {here} images, if they are normal, set --config.data.normal=." if here else ""
        raise UserError(f"{base} holds no images in the MVTec AD layout: there is no train/good in it or in its folders{hint}")
    names = select_categories(category, found)
    made = mvtec_layout("folder", {name: base / name for name in names})
    others = [child.name for child in folders if child.name not in found] if category in ("", "all") else []
    return made._replace(left_out=(*made.left_out, *((name, "folder without train/good") for name in others)))


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


def _normal_folders(directory: Path) -> list[Path]:
    return [path for path in children(directory) if path.is_dir() and is_normal(path.name)]


def mvtec_layout(name: str, roots: dict[str, Path], several: bool | None = None) -> Dataset:
    """Categories in the layout of MVTec AD; `roots` maps each category to its folder.

    `several`: whether the paths of the items begin with the category; by default where there are several.
    """
    train, test, rest = [], [], []
    several = len(roots) > 1 if several is None else several
    for category, root in roots.items():
        prefix = f"{category}/" if several else ""
        good = [item for each in _normal_folders(root / "train") for item in _items(root, each, category, prefix, "good", {})]
        if not good:
            raise UserError(
                f"there are no good images to fit on: {root / 'train' / 'good'} is missing or holds no images (it may also be "
                f"called {', '.join(sorted(NORMAL - {'good'}))})"
            )
        train += good
        tested, masks = _test_items(root, category, prefix)
        test += tested
        used = [item.file for item in good + tested] + masks
        rest += [(f"{prefix}{path}", why) for path, why in left_out(root, used, _REASONS)]
    has_masks = any(item.mask for item in test)
    return Dataset(name, tuple(roots), tuple(train), tuple(test), read_item, has_masks, left_out=tuple(rest))


_REASONS = {
    "": "outside train, test and ground_truth",
    "train": "in train, but in no folder of a normal name",
    "test": "directly under test",
    "ground_truth": "directly under ground_truth",
}


def _items(root: Path, folder: Path, category: str, prefix: str, defect: str, masks: dict[str, Path]) -> list[Item]:
    return [
        Item(f"{prefix}{file.relative_to(root).as_posix()}", category, int(defect != "good"), defect, file,
             masks.get(_stem(file, folder)))
        for file in images_in(folder)
    ]  # fmt: skip


def _test_items(root: Path, category: str, prefix: str) -> tuple[list[Item], list[Path]]:
    """The items of the test part, and all mask files."""
    items, used, truth = [], [], root / "ground_truth"
    defects = [path for path in children(root / "test") if path.is_dir()]
    for folder in defects:
        if is_normal(folder.name):
            items += _items(root, folder, category, prefix, "good", {})
            continue
        files = images_in(folder)
        masks = masks_in(truth / folder.name, files, folder)
        missing = [file for file in files if _stem(file, folder) not in masks]
        if masks and missing:
            raise UserError(
                f"the image {missing[0]} has no mask in {truth / folder.name}; add "
                f"{_stem(missing[0], folder)}_mask.png or remove the folder"
            )
        items += _items(root, folder, category, prefix, folder.name, masks)
        used += masks.values()
    for path in children(truth):
        if path.is_dir() and is_normal(path.name):
            # masks of normal images mark nothing
            used += files_below(path)
        elif path.is_dir() and path.name not in [folder.name for folder in defects]:
            raise UserError(f"{path} holds masks, but there is no folder {root / 'test' / path.name} with their images")
    return items, used


def plain_directories(normal: Path, abnormal: Path | None, masks: Path | None, test_fraction: float, seed: int) -> Dataset:
    """`test_fraction` of the normal images, drawn with `seed`, and all abnormal ones are for test."""
    if (normal / "train").is_dir() and (normal / "test").is_dir():
        raise UserError(f"{normal} holds train and test, not normal images alone; give it with --config.data.root instead")
    folders = [folder for folder in (normal, abnormal, masks) if folder]
    files = _own_images(normal, folders)
    if not files:
        raise UserError(f"there are no good images to fit on: {normal} is missing or holds no images")
    if not 0 <= test_fraction < 1:
        raise UserError(f"data.test_fraction must be in [0, 1), got {test_fraction}")
    bad = _own_images(abnormal, folders) if abnormal else []
    if abnormal and not bad:
        raise UserError(f"{abnormal} is missing or holds no images; correct data.abnormal")
    found = masks_in(masks, bad, abnormal) if masks else {}
    missing = [file for file in bad if masks and _stem(file, abnormal) not in found]
    if missing:
        raise UserError(f"the image {missing[0]} has no mask in {masks}")
    if len({*files, *bad, *found.values()}) < len(files) + len(bad) + len(found):
        raise UserError("data.normal, data.abnormal and data.masks share images; give three different folders")
    chosen = np.random.default_rng(seed).permutation(len(files))[: round(test_fraction * len(files))]
    category = normal.resolve().name
    items = [Item(f"normal/{file.relative_to(normal).as_posix()}", category, 0, "good", file) for file in files]
    held = set(chosen.tolist())
    train = tuple(item for i, item in enumerate(items) if i not in held)
    test = [item for i, item in enumerate(items) if i in held]
    test += [
        Item(f"abnormal/{_relative(file, abnormal)}", category, 1, "abnormal", file, found.get(_stem(file, abnormal)))
        for file in bad
    ]
    used = [*files, *bad, *found.values()]
    rest = dict.fromkeys((path, why) for folder in folders for path, why in left_out(folder, used, {}))
    return Dataset("folder", (category,), train, tuple(test), read_item, bool(found), left_out=tuple(rest))


def _own_images(directory: Path, folders: Sequence[Path]) -> list[Path]:
    """The images of a directory, without those of another of the folders that lies in it."""
    others = [folder for folder in folders if folder != directory and folder.is_relative_to(directory)]
    return [file for file in images_in(directory) if not any(file.is_relative_to(other) for other in others)]


def _relative(file: Path, directory: Path) -> str:
    return file.relative_to(directory).as_posix()


def _stem(file: Path, directory: Path) -> str:
    """The path from the directory without its suffix: "000", or "left/000" in a folder below."""
    return _relative(file, directory).removesuffix(file.suffix)


def images_in(directory: Path, suffixes: frozenset[str] = SUFFIXES) -> list[Path]:
    """Image files in a directory and in its folders, by path; two that differ in their suffix alone are an error."""
    files = images_below(directory, suffixes)
    stems = {}
    for file in files:
        stem = _stem(file, directory)
        if stem in stems:
            raise UserError(
                f"{stems[stem]} and {file} differ in their suffix alone, so a mask cannot tell them apart; rename one"
            )
        stems[stem] = file
    return files


def masks_in(directory: Path, files: Sequence[Path], images: Path) -> dict[str, Path]:
    """Mask files by the stem of their image in `images`: `<stem>_mask.*` or `<stem>.*`; a mask with no image is an error."""
    stems = {_stem(file, images) for file in files}
    found = {}
    for mask in images_in(directory, SUFFIXES | {".npy"}):
        own = _stem(mask, directory)
        stem = own if own in stems else own.removesuffix("_mask")
        if stem not in stems:
            raise UserError(
                f"the mask {mask} belongs to no image: there is no {stem}.* beside the others; remove the mask or add the image"
            )
        if stem in found:
            raise UserError(f"{found[stem]} and {mask} are both masks of {stem}; remove one")
        found[stem] = mask
    return found
