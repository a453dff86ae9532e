"""Runs as they lie in directories: what their `config.json`, `run.json` and `metrics.json` say."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iadjax import data, files
from iadjax.errors import UserError
from iadjax.experiment.load import read_config

__all__ = ["Figures", "collect"]

# folders of a run, and those of a search, whose runs are trials
_INSIDE = ("checkpoints", "report", "maps", "tensorboard", "weights")

_NUMBERS = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro", "aupro_05", "latency_ms", "throughput_ips", "images")


class Figures(NamedTuple):
    """What is known of one run.

    Attributes:
      path: its directory.
      config: resolved.
      record: `run.json`.
      categories: the metrics of each category.
    """

    path: Path
    config: dict[str, Any]
    record: dict[str, Any]
    categories: dict[str, dict[str, Any]]


def collect(places: Sequence[str | Path], say: Callable[[str], None]) -> list[Figures]:
    """The runs in directories and in the folders below them, without the trials of a search.

    Args:
      places: directories.
      say: takes a line about every run that is left out.

    Raises:
      UserError: there is no such directory, it holds no evaluated run, or a file of a run is damaged.
    """
    found: list[Figures] = []
    seen: set[Path] = set()
    for place in map(files.place, places):
        if not place.is_dir():
            raise UserError(f"there is no directory {place}; give directories of runs, or folders that hold them")
        number = len(seen)
        for directory in _directories(place):
            if directory.resolve() in seen:
                continue
            seen.add(directory.resolve())
            why = _unfit(directory)
            if why:
                say(f"left out: {directory} {why}")
            else:
                found.append(_read(directory))
        if len(seen) == number and not found:
            raise UserError(f"{place} holds no runs (no folder with a config.json); give directories of runs")
    if not found:
        raise UserError(
            f"no run in {', '.join(map(str, places))} has figures yet; evaluate one with scripts/evaluate.py --workdir"
        )
    return found


def _directories(place: Path) -> list[Path]:
    found = []
    for folder, inside, names in os.walk(place):
        if "config.json" in names and "run.json" in names:
            found.append(Path(folder))
            inside.clear()
            continue
        trials = ("search",) if "sweep.json" in names else ()
        inside[:] = sorted(each for each in inside if each not in (*_INSIDE, *trials))
    return found


def _unfit(directory: Path) -> str:
    """Why a run has no place in a table; "" if it has one."""
    if not (directory / "metrics.json").is_file():
        return "has no metrics.json: it is not finished"
    if read_config(directory)["protocol"]["name"] in data.SEQUENCES:
        return "is a sequence of fits, whose metrics are of several steps"
    return ""


def _read(directory: Path) -> Figures:
    advice = "make it again with scripts/evaluate.py --workdir, or leave the run out"
    file = directory / "metrics.json"
    table = files.read_json(file, advice)
    categories = {name: row for name, row in table.items() if name != "mean"}
    if not categories or not all(isinstance(row, dict) for row in table.values()):
        raise UserError(f"{file} is no table of metrics by category; {advice}")
    for name, row in categories.items():
        for key in _NUMBERS:
            value = row.get(key)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UserError(f"{file} has {value!r} for {key} of {name}; {advice}")
    return Figures(directory, read_config(directory), files.read_json(directory / "run.json", "leave the run out"), categories)
