"""Writing an index with a TFDS builder as ArrayRecord files, without TensorFlow.

A record holds the published bytes of the image, its masks and its points. `items.json` beside the records holds the index in
its order.
"""

import contextlib
import functools
import io
import itertools
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from iadjax import files, progress
from iadjax.data.dataset import Dataset, Item
from iadjax.data.prepared.read import VERSION
from iadjax.data.sources import published as builders
from iadjax.errors import UserError

__all__ = ["SPLITS", "write_prepared"]

SPLITS = ("train", "validation", "anomalies", "test")
_FIELDS = ("image", "masks", "xyz")
# TFDS keeps one shard in memory while it writes it
_SHARD_BYTES = 128 * 2**20


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
        total, count = sum(map(len, _parts(dataset).values())), itertools.count(1)
        with progress.track("prepare", total, "image") as report:
            made = _download_and_prepare(dataset, manual_dir, temporary, lambda: report(next(count), total))
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


def _download_and_prepare(dataset: Dataset, manual_dir: Path, data_dir: Path, done: Callable[[], None]) -> Path:
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
                done()

    # the default format, TFRecord, needs TensorFlow to be written
    builder = Images(data_dir=data_dir, file_format="array_record")
    # TFDS prints the temporary folder and the word "downloading", which would mislead
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
    return Path(builder.data_dir)
