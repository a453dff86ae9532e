"""What benchmarks of whole runs share: the call of `scripts/train.py`, and the table of what it changes in configs."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detector_runs import BENCHMARKS

__all__ = ["ROOT", "call", "listed", "override_lines"]

ROOT = Path(__file__).parents[2]


def call(name: str, argument: str, workdir: Path, changes: Mapping[str, Any], root: str = "", weights: str = "") -> list[str]:
    """The command of one run, which goes on where `workdir` holds its beginning.

    Args:
      name: of the detector.
      argument: of its config.
      workdir: of the run.
      changes: config keys.
      root, weights: of the images, and of the backbone where the run takes a pretrained one.
    """
    command = [sys.executable, str(ROOT / "scripts/train.py"), f"--workdir={workdir}", "--resume"]
    command.append(f"--config={ROOT / 'configs' / BENCHMARKS[name].config}:{argument}")
    command += [f"--config.{key}={value}" for key, value in changes.items()]
    command += [f"--config.data.root={root}"] if root else []
    return command + ([f"--config.backbone.weights={weights}"] if weights and BENCHMARKS[name].pretrained else [])


def listed(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Config keys as a JSON file has them."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()}


def override_lines(rows: Mapping[str, Mapping[str, Any]], sets: Sequence[str], config: str) -> list[str]:
    """A table of the overrides; `rows[detector][data set]` has "overrides", and the config under the key `config`."""
    lines = ["| detector | config | data | overrides |", "|---|---|---|---|"]
    for name, row in sorted(rows.items()):
        for dataset in (each for each in sets if each in row):
            text = " ".join(f"`{key}={value}`" for key, value in row[dataset]["overrides"].items())
            lines.append(f"| {name} | {row[dataset][config]} | {dataset} | {text} |")
    return lines
