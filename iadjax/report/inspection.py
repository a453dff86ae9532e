"""Inspection of a data set: contact sheets, counts, sizes, kinds and ranges of values, duplicates, masks, files left out."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from iadjax import files, progress
from iadjax.data import remarks
from iadjax.data.dataset import Dataset, Item
from iadjax.data.decode import decode
from iadjax.data.images import SUFFIXES, likely_range
from iadjax.data.listing import ignored_below
from iadjax.data.masks import mask_values
from iadjax.data.opening import MAX_PIXELS
from iadjax.errors import UserError
from iadjax.report.pictures import outline, picture

__all__ = ["PARTS", "inspect", "summary"]

PARTS = ("train", "validation", "anomalies", "test")
# pictures of one kind in a row of the sheet, and their side in pixels
_COLUMNS, _SIDE, _GAP, _LABEL = 8, 144, 6, 16
_CHUNK = 64
_LISTED = 5


class _Seen(NamedTuple):
    """Facts of one image.

    Attributes:
      digest: hash of the file.
      size: "WxH"; "" if it cannot be read.
      marked: number of marked pixels.
      thumbnail: if it is on a sheet.
      problem: what is wrong with it, or "".
      kind: of the stored values, like "uint16 x 3"; "" without a file.
      largest: the largest stored value, without alpha.
      white: what stands for white by the type; None where it does not say.
      levels: whether its mask has more than two values.
    """

    digest: str
    size: str = ""
    marked: int = 0
    thumbnail: Image.Image | None = None
    problem: str = ""
    kind: str = ""
    largest: float = 0.0
    white: float | None = 255.0
    levels: bool = False


def inspect(
    dataset: Dataset,
    output: str | Path,
    folders: Sequence[str | Path] = (),
    value_range: float | str = "auto",
    max_pixels: int = MAX_PIXELS,
) -> dict[str, Any]:
    """Reads every image and mask; writes `report.json` and one contact sheet `<category>.png` per category to `output`.

    Args:
      dataset: any index.
      output: a directory.
      folders: where the data set lies, to list hidden and system files.
      value_range, max_pixels: what it was loaded with; a value range is proposed where it is "auto".

    Returns:
      What `report.json` holds: `counts` {category: {part: {defect: images}}}, `sizes` {category: {"WxH": images}},
      `duplicates_across` (groups of equal images of which some are for fitting and some for test), `duplicates_within` (other
      groups), `without_mask`, `empty_mask` (paths of anomalous images), `grey_masks` (paths of images whose mask has more than
      two values), `problems` (sentences: unreadable files, masks of another size), `values` {category: {kind of stored values:
      images}}, `largest` {kind: largest value in the training images}, `proposals` (sentences on `data.value_range`),
      `remarks` (sentences: one class, no test images, left-out files), `left_out` ([path, why]) and `ignored` (hidden and
      system files and folders).
    """
    output = Path(output)
    entries = [(part, item) for part in PARTS for item in getattr(dataset, part)]
    shown = _shown(entries)
    seen: list[_Seen] = []
    with progress.track("inspect", len(entries), "image") as done, ThreadPoolExecutor() as pool:
        for start in range(0, len(entries), _CHUNK):
            chunk = entries[start : start + _CHUNK]
            seen += pool.map(lambda entry: _look(dataset, entry[1], entry[1].path in shown, max_pixels), chunk)
            done(len(seen), len(entries))
    report = _report(dataset, entries, seen)
    if value_range == "auto":
        report["proposals"] = _proposals(entries, seen)
    report["ignored"] = sorted(str(path) for folder in folders for path in ignored_below(Path(folder)))
    for category in dataset.categories:
        sheet = _sheet([(*entry, look) for entry, look in zip(entries, seen, strict=True) if entry[1].category == category])
        with files.replacing(output / f"{category}.png") as temporary:
            sheet.save(temporary, format="PNG")
    files.write_json(output / "report.json", report)
    return report


def _kinds(entries: Sequence[tuple[str, Item]]) -> dict[tuple[str, str, str], list[Item]]:
    kinds = defaultdict(list)
    for part, item in entries:
        kinds[item.category, part, item.defect].append(item)
    return kinds


def _shown(entries: Sequence[tuple[str, Item]]) -> set[str]:
    """The paths on the sheets: a few of each kind, evenly spaced."""
    chosen = set()
    for items in _kinds(entries).values():
        positions = np.unique(np.linspace(0, len(items) - 1, _COLUMNS).round().astype(int))
        chosen |= {items[i].path for i in positions}
    return chosen


def _look(dataset: Dataset, item: Item, show: bool, max_pixels: int) -> _Seen:
    try:
        contents = item.file.read_bytes() if item.file is not None else dataset.read(item)[0].tobytes()
        digest = hashlib.sha256(contents).hexdigest()
    except OSError as error:
        return _Seen("", problem=f"cannot read the image {item.file} ({error.strerror or error})")
    kind, largest, white = "", 0.0, 255.0
    try:
        if item.file is not None:
            stored = decode(item.file, max_pixels)
            colours = stored.values[..., : stored.values.shape[-1] - stored.alpha]
            kind, white = f"{stored.values.dtype} x {colours.shape[-1]}", stored.white
            largest = float(colours.max())
        image, mask = dataset.read(item)
        masks = item.masks or ((item.mask,) if item.mask else ())
        levels = any(
            mask_values(each) > 2 for each in masks if Path(str(each)).suffix.lower() in SUFFIXES | {".npy"}
        )  # fmt: skip
    except UserError as error:
        return _Seen(digest, problem=str(error), kind=kind, largest=largest, white=white)
    size, thumbnail = f"{image.shape[1]}x{image.shape[0]}", _thumbnail(image, mask) if show else None
    return _Seen(digest, size, int(mask.sum()), thumbnail, "", kind, largest, white, levels)


def _proposals(entries: Sequence[tuple[str, Item]], seen: Sequence[_Seen]) -> list[str]:
    """What `data.value_range` should be, for each kind of deep values in the training images."""
    kinds = defaultdict(list)
    for (part, _), look in zip(entries, seen, strict=True):
        if part == "train" and look.kind and not look.kind.startswith("uint8") and np.isfinite(look.largest):
            kinds[look.kind].append(look)
    found = []
    for kind, looks in sorted(kinds.items()):
        largest, white = max(look.largest for look in looks), looks[0].white
        # floats in [0, 1] may use any part of it
        used = largest <= 1.0001 if kind.startswith("float") else white is not None and 2 * largest >= white
        if not used:
            instead = "no value is white by its type" if white is None else f"{white:g} is white by its type"
            found.append(
                f"set data.value_range={likely_range(largest):g}: the largest value in {len(looks)} training images of {kind} "
                f"is {largest:g}, and {instead}"
            )
    return found


def _thumbnail(image: np.ndarray, mask: np.ndarray) -> Image.Image:
    scale = _SIDE / max(image.shape[:2])
    size = tuple(max(1, round(each * scale)) for each in image.shape[1::-1])
    small = np.asarray(Image.fromarray(picture(image)).resize(size, Image.Resampling.BILINEAR))
    # a box filter and "above 0", so that a defect of one pixel is still seen
    marked = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)) > 0
    return Image.fromarray(outline(small, marked))


def _sheet(rows: Sequence[tuple[str, Item, _Seen]]) -> Image.Image:
    """One category: a row of pictures per part and kind, with the outline of the masks."""
    kinds = defaultdict(list)
    for part, item, look in rows:
        kinds[part, item.label, item.defect].append(look)
    height = _SIDE + _LABEL + _GAP
    sheet = Image.new("RGB", (_COLUMNS * (_SIDE + _GAP) + _GAP, max(1, len(kinds)) * height + _GAP), "white")
    draw = ImageDraw.Draw(sheet)
    for row, ((part, _, defect), looks) in enumerate(
        sorted(kinds.items(), key=lambda each: (PARTS.index(each[0][0]), each[0]))
    ):
        top = _GAP + row * height
        draw.text((_GAP, top), f"{part} / {defect}: {len(looks)} images", fill="black")
        for column, thumbnail in enumerate([look.thumbnail for look in looks if look.thumbnail][:_COLUMNS]):
            sheet.paste(thumbnail, (_GAP + column * (_SIDE + _GAP), top + _LABEL))
    return sheet


def _report(dataset: Dataset, entries: Sequence[tuple[str, Item]], seen: Sequence[_Seen]) -> dict[str, Any]:
    counts = {category: defaultdict(dict) for category in dataset.categories}
    for (category, part, defect), items in sorted(_kinds(entries).items()):
        counts[category][part][defect] = len(items)
    sizes = {category: Counter() for category in dataset.categories}
    groups = defaultdict(list)
    for (part, item), look in zip(entries, seen, strict=True):
        if look.size:
            sizes[item.category][look.size] += 1
        if look.digest:
            groups[look.digest].append((part == "test", item.path))
    equal = [sorted(group, key=lambda each: each[1]) for group in groups.values() if len(group) > 1]
    across = [[path for _, path in group] for group in equal if len({test for test, _ in group}) == 2]
    within = [[path for _, path in group] for group in equal if len({test for test, _ in group}) == 1]
    values = {category: Counter() for category in dataset.categories}
    largest: dict[str, float] = {}
    for (part, item), look in zip(entries, seen, strict=True):
        if look.kind:
            values[item.category][look.kind] += 1
        if look.kind and part == "train" and np.isfinite(look.largest):
            largest[look.kind] = max(largest.get(look.kind, look.largest), look.largest)
    bad = [(item, look) for (_, item), look in zip(entries, seen, strict=True) if item.label]
    return {
        "name": dataset.name,
        "counts": counts,
        "sizes": {category: dict(found.most_common()) for category, found in sizes.items()},
        "duplicates_across": sorted(across),
        "duplicates_within": sorted(within),
        "without_mask": [item.path for item, _ in bad if item.file is not None and item.mask is None],
        "empty_mask": [item.path for item, look in bad if look.size and not look.marked and (item.mask or item.file is None)],
        "grey_masks": [item.path for (_, item), look in zip(entries, seen, strict=True) if look.levels],
        "problems": [look.problem for look in seen if look.problem],
        "values": {category: dict(found.most_common()) for category, found in values.items()},
        "largest": largest,
        "proposals": [],
        "remarks": remarks(dataset),
        "left_out": [list(each) for each in dataset.left_out],
    }


def summary(report: dict[str, Any]) -> str:
    """The report as a few lines of text."""
    lines = [report["name"]]
    for category, parts in report["counts"].items():
        lines.append(f"  {category}")
        for part, kinds in parts.items():
            lines.append(f"    {part}: {sum(kinds.values())} ({', '.join(f'{kind} {n}' for kind, n in kinds.items())})")
        sizes = list(report["sizes"][category].items())
        more = f", and {len(sizes) - _LISTED} more sizes" if len(sizes) > _LISTED else ""
        lines.append(f"    sizes: {', '.join(f'{size} ({n})' for size, n in sizes[:_LISTED])}{more}")
        lines.append(f"    values: {', '.join(f'{kind} ({n})' for kind, n in report['values'][category].items())}")
    lines += [f"  {each}" for each in [*report["remarks"], *report["proposals"]]]
    for key, what in (
        ("duplicates_across", "groups of equal images in both training and test parts"),
        ("duplicates_within", "groups of equal images within a part"),
        ("without_mask", "anomalous images without a mask"),
        ("empty_mask", "anomalous images whose mask marks nothing"),
        ("grey_masks", "images whose mask has more than two values"),
        ("problems", "files with problems"),
        ("left_out", "files or folders left out"),
        ("ignored", "hidden or system files and folders, which are ignored"),
    ):
        found = report[key]
        lines.append(f"  {len(found)} {what}")
        between = ": " if key == "left_out" else " = "
        lines += [f"    {each if isinstance(each, str) else between.join(each)}" for each in found[:_LISTED]]
        if len(found) > _LISTED:
            lines.append(f"    and {len(found) - _LISTED} more in report.json")
    return "\n".join(lines)
