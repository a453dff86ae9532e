"""Inspection of a data set: contact sheets, counts, sizes, duplicates, masks."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from iadjax import files, progress
from iadjax.data.dataset import Dataset, Item
from iadjax.errors import UserError
from iadjax.report.pictures import outline, picture

__all__ = ["PARTS", "inspect", "summary"]

PARTS = ("train", "validation", "anomalies", "test")
# pictures of one kind in a row of the sheet, and their side in pixels
_COLUMNS, _SIDE, _GAP, _LABEL = 8, 144, 6, 16
_CHUNK = 64
_LISTED = 5


class _Seen(NamedTuple):
    """Facts of one image: hash, "WxH", number of marked pixels, a thumbnail if it is on a sheet, or what is wrong with it."""

    digest: str
    size: str = ""
    marked: int = 0
    thumbnail: Image.Image | None = None
    problem: str = ""


def inspect(dataset: Dataset, output: str | Path) -> dict[str, Any]:
    """Reads every image and mask; writes `report.json` and one contact sheet `<category>.png` per category to `output`.

    Args:
      dataset: any index.
      output: a directory.

    Returns:
      What `report.json` holds: `counts` {category: {part: {defect: images}}}, `sizes` {category: {"WxH": images}},
      `duplicates_across` (groups of equal images of which some are for fitting and some for test), `duplicates_within` (other
      groups), `without_mask`, `empty_mask` (paths of anomalous images) and `problems` (sentences: unreadable files, masks of
      another size).
    """
    output = Path(output)
    entries = [(part, item) for part in PARTS for item in getattr(dataset, part)]
    shown = _shown(entries)
    seen: list[_Seen] = []
    with progress.track("inspect", len(entries), "image") as done, ThreadPoolExecutor() as pool:
        for start in range(0, len(entries), _CHUNK):
            chunk = entries[start : start + _CHUNK]
            seen += pool.map(lambda entry: _look(dataset, entry[1], entry[1].path in shown), chunk)
            done(len(seen), len(entries))
    report = _report(dataset, entries, seen)
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


def _look(dataset: Dataset, item: Item, show: bool) -> _Seen:
    try:
        contents = item.file.read_bytes() if item.file is not None else dataset.read(item)[0].tobytes()
        digest = hashlib.sha256(contents).hexdigest()
    except OSError as error:
        return _Seen("", problem=f"cannot read the image {item.file} ({error.strerror or error})")
    try:
        image, mask = dataset.read(item)
    except UserError as error:
        return _Seen(digest, problem=str(error))
    return _Seen(
        digest, f"{image.shape[1]}x{image.shape[0]}", int(mask.sum()), _thumbnail(image, mask) if show else None
    )  # fmt: skip


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
    bad = [(item, look) for (_, item), look in zip(entries, seen, strict=True) if item.label]
    return {
        "name": dataset.name,
        "counts": counts,
        "sizes": {category: dict(found.most_common()) for category, found in sizes.items()},
        "duplicates_across": sorted(across),
        "duplicates_within": sorted(within),
        "without_mask": [item.path for item, _ in bad if item.file is not None and item.mask is None],
        "empty_mask": [item.path for item, look in bad if look.size and not look.marked and (item.mask or item.file is None)],
        "problems": [look.problem for look in seen if look.problem],
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
    for key, what in (
        ("duplicates_across", "groups of equal images in both training and test parts"),
        ("duplicates_within", "groups of equal images within a part"),
        ("without_mask", "anomalous images without a mask"),
        ("empty_mask", "anomalous images whose mask marks nothing"),
        ("problems", "files with problems"),
    ):
        found = report[key]
        lines.append(f"  {len(found)} {what}")
        lines += [f"    {each if isinstance(each, str) else ' = '.join(each)}" for each in found[:_LISTED]]
        if len(found) > _LISTED:
            lines.append(f"    and {len(found) - _LISTED} more in report.json")
    return "\n".join(lines)
