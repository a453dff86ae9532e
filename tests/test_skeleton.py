"""The two skeleton files of CONTRIBUTING.md work as they stand."""

import importlib.util
import sys
from pathlib import Path

import pytest

import iadjax
from iadjax import detectors
from iadjax.config import base_config
from iadjax.export import export
from tests.conftest import draw_tree

FOLDER = Path(__file__).parents[1] / "docs/skeleton"


@pytest.fixture
def skeleton(monkeypatch):
    """The tests of the skeleton, with its detector registered as the page says."""
    for name in ("my_detector", "test_my_detector"):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
    monkeypatch.setitem(detectors.MODULES, "my_detector", "my_detector")
    return sys.modules["test_my_detector"]


def test_its_tests_pass(skeleton, tmp_path):
    skeleton.test_score_and_map_are_those_of_the_formula(tmp_path)
    skeleton.test_options_are_checked()


def test_it_stops_resumes_and_exports_as_every_detector(skeleton, tmp_path):
    config = base_config("my_detector", "folder")
    config.data.update({"root": str(draw_tree(tmp_path)), "resize": 32, "batch_size": 2})
    config.detector.layers = ("layer1",)
    run = iadjax.fit(config, tmp_path / "run")
    assert iadjax.load(tmp_path / "run").threshold == run.threshold
    assert export(run, tmp_path / "export", check=2).is_file()
