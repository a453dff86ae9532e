"""Common to the modules of published data sets: finding folders and files, and errors that name what is missing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from iadjax.data.dataset import Dataset, Item
from iadjax.data.images import SUFFIXES
from iadjax.data.listing import children
from iadjax.data.sources.folder import select_categories
from iadjax.errors import UserError

__all__ = ["PARTS", "chosen", "count", "files_in", "items_in", "one_file", "readable", "root_of", "table"]

PARTS = ("train", "validation", "anomalies", "test_good", "test_anomalous")
"""Where an image of a published split can be: `anomalies` are the labelled anomalous images of the training part."""


def table(parts: Sequence[str], rows: Mapping[str, Sequence[int]]) -> dict[str, dict[str, int]]:
    """COUNTS of one data set: {category: {part: images}} from a row of numbers per category."""
    return {category: dict(zip(parts, row, strict=True)) for category, row in rows.items()}


def count(dataset: Dataset) -> dict[str, dict[str, int]]:
    """Images of an index: {category: {part: images}}, every part of `PARTS`."""
    found = {category: dict.fromkeys(PARTS, 0) for category in dataset.categories}
    for part in ("train", "validation", "anomalies"):
        for item in getattr(dataset, part):
            found[item.category][part] += 1
    for item in dataset.test:
        found[item.category]["test_anomalous" if item.label else "test_good"] += 1
    return found


def root_of(name: str, root: str | Path, holds: str) -> Path:
    """The folder of a data set; `holds` describes its contents for the error message.

    Raises:
      UserError: `root` is empty or no folder.
    """
    if not str(root):
        raise UserError(f"{name} needs --config.data.root=DIR, the folder that holds {holds}")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise UserError(f"there is no folder {base}; give the one of {name} with --config.data.root=DIR (it holds {holds})")
    return base


def chosen(name: str, base: Path, category: str, known: Sequence[str], folder: Callable[[str], Path]) -> tuple[str, ...]:
    """The categories that `category` names, once their folders `folder(category)` are there.

    Raises:
      UserError: an unknown category, or one whose folder is missing (all are named).
    """
    names = select_categories(category, known)
    missing = [each for each in names if not folder(each).is_dir()]
    if missing:
        raise UserError(
            f"{base} lacks {len(missing)} of {len(names)} categories of {name}: {', '.join(missing)} (there is no folder "
            f"{folder(missing[0])}); name those you have with data.category, or give another folder with --config.data.root=DIR"
        )
    return names


def files_in(directory: Path, suffixes: Iterable[str] = SUFFIXES) -> list[Path]:
    """Files directly in an existing directory with one of the suffixes (in lower case), by name; see `listing`."""
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory}; complete the data set, or correct --config.data.root")
    keep = frozenset(suffixes)
    return [path for path in children(directory) if path.suffix.lower() in keep]


def one_file(directory: Path, stem: str, image: Path) -> Path:
    """The mask `directory/stem.*` of an image, with any suffix of an image; a UserError if there is none."""
    found = [
        file for suffix in sorted(SUFFIXES) for file in (directory / f"{stem}{suffix}", directory / f"{stem}{suffix.upper()}")
    ]
    found = [file for file in found if file.is_file()]
    if not found:
        raise UserError(
            f"the image {image} has no mask {directory / stem}.png (nor with another suffix); complete the data set"
        )
    return found[0]


def readable(file: Path, of: str) -> Path:
    """The file, if it exists; else a UserError that names it and the data set, `of`."""
    if not file.is_file():
        raise UserError(f"the file {file} of {of} is missing; complete the data set")
    return file


def items_in(
    base: Path, directory: Path, category: str, defect: str = "good", mask: Callable[[Path], Path] | None = None
) -> list[Item]:
    """The images of a directory as items of one kind; `mask(image)` is the mask of an anomalous one."""
    return [
        Item(file.relative_to(base).as_posix(), category, int(defect != "good"), defect, file, mask(file) if mask else None)
        for file in files_in(directory)
    ]
