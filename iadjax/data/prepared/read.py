"""Reading prepared data sets: ArrayRecord files, written by `iadjax.data.prepared.records` and read by TFDS without TensorFlow.

A record holds the published bytes of the image, its masks and its points. So prepared and published data sets decode to the
same pixels. `items.json` beside the records holds the index in its order. TFDS alone can read the records too.
"""

import dataclasses
import functools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iadjax.data.dataset import Dataset, Item
from iadjax.data.sources import published as builders
from iadjax.data.sources.folder import select_categories
from iadjax.errors import UserError

__all__ = ["VERSION", "Stored", "find_prepared", "load_prepared"]

VERSION = "1.0.0"
# records that stay in memory, because image, masks and points of an item are read one after the other
_CACHED = 8


@dataclasses.dataclass(frozen=True)
class Stored:
    """A file of a prepared data set: prints as its published path and has `read_bytes()`, as a path has.

    Attributes:
      path: the published path, relative to the root.
      load: gives the bytes.
    """

    path: str
    load: Callable[[], bytes] = dataclasses.field(compare=False, repr=False)

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def read_bytes(self) -> bytes:
        """The contents, as published."""
        return self.load()


def find_prepared(root: str | Path, name: str) -> Path | None:
    """The folder of a prepared data set: `root`, or `name`/1.0.0 in it; None where `root` is something else.

    Raises:
      UserError: `root` holds another prepared data set.
    """
    base = Path(root).expanduser()
    for directory in (base, base / name / VERSION):
        if (directory / "items.json").is_file() and (directory / "dataset_info.json").is_file():
            found = _read_index(directory)["name"]
            if found != name:
                raise UserError(
                    f"{directory} holds the prepared data set {found!r}, not {name!r}; set --config.data.name={found}"
                )
            return directory
    return None


def load_prepared(directory: Path, name: str, category: str) -> Dataset:
    """The index of a prepared data set; only the files of its items differ from those of the published folders.

    Args:
      directory: from `find_prepared`.
      name: the data set.
      category: as in `iadjax.data.load`.
    """
    import tensorflow_datasets as tfds

    module = builders.module(name)
    index = _read_index(directory)
    categories = select_categories(category, index["categories"])
    builder = tfds.builder_from_directory(directory)
    parts = {}
    for part, rows in index["items"].items():
        source = builder.as_data_source(split=part)
        if len(source) != len(rows):
            raise UserError(f"{directory} is damaged: {part} holds {len(source)} of {len(rows)} records; prepare it again")
        record = functools.lru_cache(_CACHED)(functools.partial(_record, source, directory))
        parts[part] = tuple(_item(record, i, row) for i, row in enumerate(rows) if row["category"] in categories)
    test, train = parts.get("test", ()), parts.get("train", ())
    rest = {part: parts.get(part, ()) for part in ("validation", "anomalies")}
    if hasattr(module, "defects"):
        rest["defects"] = functools.partial(module.defects, directory)
    points = getattr(module, "points", None)
    return Dataset(name, categories, train, test, module.read, index["has_masks"], points=points, **rest)


def _read_index(directory: Path) -> dict[str, Any]:
    try:
        return json.loads((directory / "items.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {directory / 'items.json'} ({error}); prepare the data set again") from error


def _record(source: Sequence, directory: Path, position: int, path: str) -> dict[str, Any]:
    record = source[position]
    if record["path"].decode() != path:
        raise UserError(f"{directory} is damaged: record {position} is {record['path'].decode()}, not {path}; prepare it again")
    return record


def _item(record: Callable[[int, str], dict[str, Any]], position: int, row: Mapping[str, Any]) -> Item:
    path = row["path"]

    def stored(field: str, name: str, number: int) -> Stored:
        def load() -> bytes:
            value = record(position, path)[field]
            return value if field == "image" else value[number]

        return Stored(name, load)

    masks, xyz = (tuple(stored(field, each, i) for i, each in enumerate(row[field])) for field in ("masks", "xyz"))
    return Item(
        path, row["category"], row["label"], row["defect"], stored("image", row["image"], 0),
        masks[0] if masks else None, masks if row["several"] else (), xyz,
    )  # fmt: skip
