"""The runs of the benchmark of all detectors: their settings are keys that exist and sizes that fit together."""

import importlib.util
from pathlib import Path

import pytest

from iadjax import config as configs
from iadjax import detectors
from iadjax.config import load_config, override

ROOT = Path(__file__).parents[1]


def runs():
    spec = importlib.util.spec_from_file_location("detector_runs", ROOT / "scripts/benchmarks/detector_runs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(runs().BENCHMARKS))
def test_settings_fit(name):
    module = runs()
    for dataset in module.SETS[1:]:
        argument = "folder" if dataset == "hazelnut_toy" else dataset
        config = load_config(f"{ROOT / 'configs' / module.BENCHMARKS[name].config}:{argument}")
        override(config, {key: str(value) for key, value in module.overrides(name, dataset).items()})
        model = configs.outline_model(configs.resolve(config))
        model.transform.geometry(1024, 1024)


def test_every_detector_has_a_run_but_those_that_need_weights():
    assert set(detectors.MODULES) - set(runs().BENCHMARKS) == {"anomalyclip", "winclip"}
