"""What `predict_files` writes: tables that grow row by row, and the files of each image."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tifffile
from PIL import Image

from iadjax import files, report
from iadjax.data import Transform
from iadjax.experiment import contours
from iadjax.experiment.inputs import Input

__all__ = ["SKIPPED", "Table", "What", "remove_temporary", "write_files"]

SKIPPED = "skipped.csv"


class Table:
    """A CSV table to which rows are appended, each written at once, so that a stopped program leaves whole rows.

    The file is made, or cut after its last whole row, when the first row is written.

    Attributes:
      rows: the rows that the file held when it was opened; none unless it is continued.
    """

    def __init__(self, path: Path, header: Sequence[str], resume: bool):
        self.path, self.header = path, list(header)
        self.rows, self._kept = _whole_rows(path, self.header) if resume and path.is_file() else ([], 0)
        self._file = None

    def write(self, *rows: Sequence[Any]) -> None:
        """Appends rows, see `files.csv_line`."""
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("r+b" if self._kept else "wb")
            self._file.seek(self._kept)
            self._file.truncate()
            rows = rows if self._kept else (self.header, *rows)
        for row in rows:
            self._file.write(files.csv_line(row).encode())
            self._file.flush()

    def __enter__(self) -> "Table":
        return self

    def __exit__(self, *_: Any) -> None:
        if self._file is not None:
            self._file.close()


def _whole_rows(path: Path, header: list[str]) -> tuple[list[list[str]], int]:
    """The rows below the header that were written to their end, and the bytes of all; none with another header."""
    # a name that was cut may not be UTF-8 at its end
    text = io.StringIO(path.read_bytes().decode("utf-8", "surrogateescape"), newline="")
    taken: list[str] = []

    def lines():
        for line in text:
            taken.append(line)
            yield line

    rows, kept = [], 0
    for row in csv.reader(lines()):
        if len(row) != len(header) or not taken[-1].endswith("\n") or (not rows and row != header):
            break
        rows.append(row)
        kept += sum(len(line.encode("utf-8", "surrogateescape")) for line in taken)
        taken.clear()
    return rows[1:], kept


class What(NamedTuple):
    """What is written for an image.

    Attributes:
      save: some of `inputs.KINDS`.
      overlay_size: the longer side of an overlay at most; 0 = that of the image.
      colours: (low, high) of overlays, or None if none are drawn.
      threshold: the pixel threshold, or None where neither masks nor contours are asked for.
    """

    save: Sequence[str]
    overlay_size: int
    colours: tuple[float, float] | None
    threshold: float | None


def write_files(
    output: Path, one: Input, pixels: np.ndarray, transform: Transform, anomaly_map: np.ndarray, what: What
) -> None:
    """Writes the files of one image under `output`, each in the folder of its kind, named as the image and by its own suffix.

    Args:
      output: the folder.
      one: the image.
      pixels: its pixels, `[H, W, 3]`.
      transform: of the run.
      anomaly_map: `[h, w]` float32 at the network's resolution.
      what: which files.
    """
    if "overlays" in what.save:
        picture = report.overlay(pixels, transform, anomaly_map, *what.colours, size=what.overlay_size)
        with files.replacing(output / "overlays" / f"{one.name}.png") as temporary:
            picture.save(temporary, format="PNG")
        del picture
    if not set(what.save) - {"overlays"}:
        return
    size = pixels.shape[:2]
    values, corner = report.map_on(transform, anomaly_map, size, size)
    if "maps" in what.save:
        with files.replacing(output / "maps" / f"{one.name}.tiff") as temporary:
            # outside a crop there is no map
            tifffile.imwrite(temporary, _placed(values, corner, size, np.float32(np.nan)))
    if "masks" in what.save:
        marked = _placed(np.where(values >= what.threshold, np.uint8(255), np.uint8(0)), corner, size, np.uint8(0))
        with files.replacing(output / "masks" / f"{one.name}.png") as temporary:
            Image.fromarray(marked).save(temporary, format="PNG")
    if "contours" in what.save:
        facts = {"image": one.path, "height": size[0], "width": size[1], "threshold": what.threshold}
        found = contours.regions(values, what.threshold, corner)
        files.write_text(output / "contours" / f"{one.name}.json", json.dumps(facts | {"regions": found}) + "\n")


def _placed(values: np.ndarray, corner: tuple[int, int], size: tuple[int, int], rest: np.generic) -> np.ndarray:
    """Values of the visible part in an array of the original's size."""
    if values.shape == tuple(size):
        return values
    whole = np.full(size, rest)
    whole[corner[0] : corner[0] + values.shape[0], corner[1] : corner[1] + values.shape[1]] = values
    return whole


def remove_temporary(output: Path, folders: Sequence[str]) -> None:
    """Removes what a killed program was just writing."""
    for folder in folders:
        for path in (output / folder).rglob(".*.tmp") if (output / folder).is_dir() else ():
            os.unlink(path)
