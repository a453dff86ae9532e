"""Every config file: it opens with its run command and says what is published and measured, and all its variants hold."""

import re
from pathlib import Path

import pytest

from iadjax import data, detectors
from iadjax.config import load_config, outline_model, resolve

FOLDER = Path(__file__).parents[2] / "configs"
FILES = sorted(FOLDER.glob("*/*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_a_config_says_how_it_is_run_and_holds(file):
    text = file.read_text(encoding="utf-8")
    head = text.split('"""')[1]
    name = file.relative_to(FOLDER.parent).as_posix()
    commands = re.findall(rf"python scripts/train.py --config={name}:(\S+)", head)
    assert commands and "ublished" in head and "Measured here" in head
    for argument in (*commands, ""):
        config = resolve(load_config(f"{file}:{argument}" if argument else str(file)))
        assert config["data"]["name"] in data.NAMES and config["detector"]["name"] == file.stem
        # the detector takes its options on its networks
        outline_model(config)


def test_every_detector_has_a_config():
    assert {file.stem for file in FILES} == set(detectors.MODULES)
