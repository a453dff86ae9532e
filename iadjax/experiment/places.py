"""Where a run finds its images and weights: from any folder, and after it was moved."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iadjax import config as configs
from iadjax import files

__all__ = ["absolute", "carried_weights", "carry_weights", "keep", "moved"]


def absolute(config: dict[str, Any]) -> dict[str, Any]:
    """A resolved config whose paths hold from any folder: both roots, and weights that are files."""
    section = dict(config["data"])
    if section["root"]:
        section["root"] = str(files.place(section["root"]).absolute())
    elif section.get("normal"):
        # `normal`, `abnormal` and `masks` are relative to the root
        section["root"] = str(Path.cwd())
    protocol = dict(config["protocol"])
    if protocol.get("source_root"):
        protocol["source_root"] = str(files.place(protocol["source_root"]).absolute())
    config = {**config, "data": section, "protocol": protocol}
    return configs.with_weights(config, {name: _absolute_file(tag) for name, tag in _weights(config).items()})


def moved(config: dict[str, Any], root: str | None, max_pixels: int | None = None) -> dict[str, Any]:
    """The config with another `data.root` and `data.max_pixels`; None leaves them."""
    given = {"root": root, "max_pixels": max_pixels}
    given = {key: value for key, value in given.items() if value is not None}
    return absolute(configs.resolve({**config, "data": {**config["data"], **given}})) if given else config


def carry_weights(workdir: Path, config: Mapping[str, Any]) -> None:
    """Keeps the weights that are files as `WORKDIR/weights/<network>.safetensors`: as a link where the disk is the same.

    Weights of the Hub are not kept: its client finds them by their tag.
    """
    for name, source in _weights(config).items():
        if Path(source).is_file():
            keep(workdir, name, source)


def keep(workdir: Path, name: str, source: str) -> None:
    """Keeps the weights file of the network `name` in a run's directory."""
    target = _carried(workdir, name)
    if target.exists() and target.samefile(source):
        return
    with files.replacing(target) as temporary:
        try:
            os.link(Path(source).resolve(), temporary)
        except OSError:
            # another disk, or one without links
            shutil.copyfile(source, temporary)


def carried_weights(workdir: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The weights files that a run has with it, by the names of their networks."""
    found = {name: _carried(workdir, name) for name in _weights(config)}
    return {name: str(file) for name, file in found.items() if file.is_file()}


def _carried(workdir: Path, name: str) -> Path:
    return workdir / "weights" / f"{name}.safetensors"


def _weights(config: Mapping[str, Any]) -> dict[str, str]:
    return {name: configs.network_keys(config, name)["weights"] for name in configs.network_names(config)}


def _absolute_file(weights: str) -> str:
    path = files.place(weights) if weights else Path()
    return str(path.absolute()) if weights and path.is_file() else weights
