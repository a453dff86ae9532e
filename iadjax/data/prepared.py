"""Prepared data sets: any index as one TFDS builder in ArrayRecord files, without TensorFlow, and back.

A record holds the bytes of the image, of its masks and of its points as they were published, so that both forms decode to the
same pixels. `items.json` beside the records holds the index in its order; TFDS alone can read the records too.
"""

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iadjax import files
from iadjax.data import builders
from iadjax.data.dataset import Dataset, Item
from iadjax.data.folder import select_categories
from iadjax.errors import UserError

__all__ = ["Stored", "find_prepared", "load_prepared", "write_prepared"]

VERSION = "1.0.0"
SPLITS = ("train", "validation", "anomalies", "test")
_FIELDS = ("image", "masks", "xyz")
# TFDS keeps one shard in memory while it writes it
_SHARD_BYTES = 128 * 2**20
# records that stay decoded: an item asks for image, masks and points one after the other
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
    """The index of a prepared data set; items equal those of the published folders, but for their files.

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
    points = getattr(module, "points", None)
    rest = {part: parts.get(part, ()) for part in ("validation", "anomalies")}
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

    def stored(field: str, name: str, place: int) -> Stored:
        def load() -> bytes:
            value = record(position, path)[field]
            return value if field == "image" else value[place]

        return Stored(name, load)

    masks, xyz = (tuple(stored(field, each, i) for i, each in enumerate(row[field])) for field in ("masks", "xyz"))
    return Item(
        path, row["category"], row["label"], row["defect"], stored("image", row["image"], 0),
        masks[0] if masks else None, masks if row["several"] else (), xyz,
    )  # fmt: skip


def write_prepared(
    dataset: Dataset, manual_dir: Path, output: Path, side_files: Sequence[str] = (), notes: Mapping[str, Any] | None = None
) -> Path:
    """Writes an index and its files to `output`/<name>/1.0.0 and returns that folder.

    Args:
      dataset: an index whose items have files.
      manual_dir: its root.
      output: the folder of prepared data sets.
      side_files: further files to keep, relative to `manual_dir`.
      notes: what to record beside the index, like differences from the published counts.

    Raises:
      UserError: there is one already, or a file cannot be read or written; nothing is left behind.
    """
    target = output / dataset.name / VERSION
    if target.exists():
        raise UserError(f"{target} exists; remove it to prepare {dataset.name} again, or give another --output")
    temporary = output / f".{dataset.name}.{os.getpid()}.tmp"
    try:
        made = _download_and_prepare(dataset, manual_dir, temporary)
        files.write_json(made / "items.json", _index(dataset, manual_dir) | {"notes": dict(notes or {})})
        for each in side_files:
            (made / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(manual_dir / each, made / each)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(made, target)
    except OSError as error:
        raise UserError(f"cannot prepare {dataset.name}: {error.strerror or error} ({error.filename or output})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _files(item: Item) -> dict[str, tuple]:
    masks = item.masks or ((item.mask,) if item.mask else ())
    return dict(zip(_FIELDS, ((item.file,), masks, item.xyz), strict=True))


def _parts(dataset: Dataset) -> dict[str, tuple[Item, ...]]:
    # TFDS has no empty splits
    return {part: getattr(dataset, part) for part in SPLITS if getattr(dataset, part)}


def _index(dataset: Dataset, root: Path) -> dict[str, Any]:
    def row(item: Item) -> dict[str, Any]:
        names = {key: [_relative(file, root) for file in found] for key, found in _files(item).items()}
        plain = {"path": item.path, "category": item.category, "label": item.label, "defect": item.defect}
        return plain | names | {"image": names["image"][0], "several": bool(item.masks)}

    return {
        "name": dataset.name,
        "categories": list(dataset.categories),
        "has_masks": dataset.has_masks,
        "items": {part: [row(item) for item in items] for part, items in _parts(dataset).items()},
    }


def _relative(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def _shards(items: Sequence[Item]) -> list[list[Item]]:
    """The items in their order, cut where a shard is full."""
    shards, size = [[]], 0
    for item in items:
        weight = sum(file.stat().st_size for found in _files(item).values() for file in found)
        if shards[-1] and size + weight > _SHARD_BYTES:
            shards.append([])
            size = 0
        shards[-1].append(item)
        size += weight
    return shards


def _download_and_prepare(dataset: Dataset, manual_dir: Path, data_dir: Path) -> Path:
    import numpy as np
    import tensorflow_datasets as tfds

    contents = tfds.features.Tensor(shape=(), dtype=np.object_)

    # its sibling GeneratorBasedBuilder sorts on disk from 1 GB on, which needs TensorFlow; here position i is item i
    class Images(tfds.core.ShardBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(VERSION)
        MANUAL_DOWNLOAD_INSTRUCTIONS = "manual_dir is the folder of the data set as it is published; see docs/data.md."
        name = dataset.name
        # checksums and cards are not looked for beside this file
        code_path = None

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                description=builders.module(dataset.name).__doc__,
                features=tfds.features.FeaturesDict(
                    {
                        **{key: tfds.features.Text() for key in ("path", "category", "defect")},
                        "label": tfds.features.Scalar(np.int64),
                        "image": contents,
                        "masks": tfds.features.Sequence(contents),
                        "xyz": tfds.features.Sequence(contents),
                    }
                ),
            )

        def _shard_iterators_per_split(self, dl_manager):
            del dl_manager
            return {
                part: [functools.partial(self._generate_examples, shard) for shard in _shards(items)]
                for part, items in _parts(dataset).items()
            }

        def _generate_examples(self, items):
            for number, item in enumerate(items):
                found = {key: [file.read_bytes() for file in some] for key, some in _files(item).items()}
                plain = {"path": item.path, "category": item.category, "defect": item.defect, "label": item.label}
                yield number, plain | found | {"image": found["image"][0]}

    # the default format, TFRecord, needs TensorFlow to be written
    builder = Images(data_dir=data_dir, file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
    return Path(builder.data_dir)
