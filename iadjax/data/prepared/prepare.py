"""Preparing a published data set: checks what is there against what was published, then writes it with TFDS."""

from pathlib import Path

from iadjax.data.dataset import Dataset
from iadjax.data.prepared.records import SPLITS, write_prepared
from iadjax.data.sources import published as builders
from iadjax.data.sources.published.common import PARTS, count, root_of
from iadjax.errors import UserError

__all__ = ["describe", "differences", "prepare"]


def describe(name: str) -> str:
    """The card of a data set: its module's docstring and a table of the published counts."""
    module = builders.module(name)
    counts = module.COUNTS[name]
    parts = [part for part in PARTS if any(part in row for row in counts.values())]
    lines = [module.__doc__.strip(), ""]
    if not parts:
        sums = ", ".join(f"{part} {number}" for part, number in _totals(name).items())
        return "\n".join([*lines, f"{len(counts)} categories: {', '.join(counts)}", f"sum: {sums}"])
    width = max(len(each) for each in (*counts, "category"))
    lines.append("  ".join([f"{'category':<{width}}", *(f"{part:>14}" for part in parts)]))
    for category, row in counts.items():
        lines.append("  ".join([f"{category:<{width}}", *(f"{row.get(part, '?'):>14}" for part in parts)]))
    totals = [sum(row.get(part, 0) for row in counts.values()) for part in parts]
    if all(part in row for row in counts.values() for part in parts):
        lines.append("  ".join([f"{'sum':<{width}}", *(f"{each:>14}" for each in totals)]))
    return "\n".join(lines)


def _totals(name: str) -> dict[str, int]:
    """Published sums of a data set whose counts by category are not known."""
    return getattr(builders.module(name), "TOTALS", {}).get(name, {})


def differences(dataset: Dataset, name: str) -> list[str]:
    """Where an index differs from the published counts, like "bottle/train: 205 of 209 images"."""
    published = builders.module(name).COUNTS[name]
    found = count(dataset)
    return [
        f"{category}/{part}: {found[category][part]} of {expected} images"
        for category in dataset.categories
        for part, expected in published[category].items()
        if found[category][part] != expected
    ]


def _differing_sums(dataset: Dataset, name: str) -> list[str]:
    found = count(dataset).values()
    sums = {part: sum(row[part] for row in found) for part in PARTS}
    return [f"sum/{part}: {sums[part]} of {each} images" for part, each in _totals(name).items() if sums[part] != each]


def prepare(name: str, manual_dir: str | Path, output: str | Path, allow_incomplete: bool = False) -> tuple[Path, list[str]]:
    """Writes the data set `name` in `manual_dir` to `output`/`name`/1.0.0.

    Every category is looked at by itself: one that is absent or broken is named with its reason, the others are counted and
    compared with the published counts.

    Args:
      name: one of `builders.MODULES`.
      manual_dir: its folder, as published.
      output: the folder of prepared data sets.
      allow_incomplete: write what is there; the differences are recorded in `items.json` under "notes".

    Returns:
      The folder, and the differences from the published counts.

    Raises:
      UserError: something is missing and `allow_incomplete` is not set, or nothing is there, or it cannot be written; nothing
        is left behind.
    """
    module = builders.module(name)
    base = root_of(name, manual_dir, "the data set as it is published").resolve()
    indices, found = [], []
    for category in module.COUNTS[name]:
        try:
            dataset = module.index(name, base, category)
        except UserError as error:
            found.append(f"{category}: left out, because {error}")
            continue
        indices.append(dataset)
        found += differences(dataset, name)
    if not indices:
        raise UserError(f"{base} holds nothing of {name}; {found[0].partition('because ')[2]}")
    whole = _united(indices)
    if len(indices) == len(module.COUNTS[name]):
        found += _differing_sums(whole, name)
    if found and not allow_incomplete:
        raise UserError(f"{base} is not {name} as published: {'; '.join(found)}. Complete it, or add --allow_incomplete")
    side_files = [each.format(category=some) for each in getattr(module, "SIDE_FILES", ()) for some in whole.categories]
    for each in side_files:
        if not (base / each).is_file():
            raise UserError(f"the file {base / each} is missing; complete the data set")
    return write_prepared(whole, base, Path(output).expanduser(), side_files, {"differences": found}), found


def _united(indices: list[Dataset]) -> Dataset:
    parts = {part: tuple(item for each in indices for item in getattr(each, part)) for part in SPLITS}
    return indices[0]._replace(categories=tuple(category for each in indices for category in each.categories), **parts)
