"""The benchmark of trained detectors: its settings are options that exist, and what it writes of a run."""

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from iadjax import config as configs
from iadjax.config import load_config, override

FOLDER = Path(__file__).parents[1] / "scripts/benchmarks"


@pytest.fixture
def load(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    def module(name):
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return module


def test_settings_are_keys_of_their_configs(load):
    cases, runs = load("trained_cases"), load("detector_runs")
    for name in cases.SCHEDULES:
        for dataset in cases.SETS:
            argument = "folder" if dataset == "hazelnut_toy" else dataset
            config = load_config(str(FOLDER.parents[1] / "configs" / runs.BENCHMARKS[name].config) + f":{argument}")
            override(config, {key: str(value) for key, value in cases.settings(name, dataset).items()})
            resolved = configs.resolve(config)
            assert resolved["plateau"] == 0.2
            # not the shortened schedule
            lengths = [key for key in ("epochs", "steps") if key in resolved["detector"]]
            assert any(f"detector.{key}" in cases.SCHEDULES[name] for key in lengths)


def test_a_row_and_a_curve(load, tmp_path):
    trained = load("trained_page")
    phase = {
        "phase": "train",
        "steps": 120,
        "schedule": 500,
        "flat": True,
        "stopped_by": "a flat loss",
        "curve": [3.0, 1.0, 2.0],
    }
    found = {
        "accuracy": {"image_auroc": {"mean": 0.91234, "std": None}, "aupro": {"mean": 0.5, "std": 0.25}},
        "fit_seconds": 12.4,
        "latency_ms": 7.6,
        "images_per_second": 20.0,
        "peak_memory_gib": 1.25,
        "machine": "cpu",
        "phases": [phase],
    }
    line = "| dfr | 0.912 |  |  | 0.500 ± 0.250 |  | 12 | 8 | 20.0 | 1.2 | cpu | train: a flat loss, 120 of 500 steps |"
    assert trained.row("dfr", found) == line
    points = re.search(r'points="(.*?)"', trained.picture(phase))[1].split()
    heights = [float(point.split(",")[1]) for point in points]
    # the largest loss is on top, and the third value in the middle
    assert heights[0] < heights[2] < heights[1] and heights[2] * 2 == pytest.approx(heights[0] + heights[1], abs=0.2)


def test_bad_input_ends_with_one_sentence(tmp_path):
    weights = tmp_path / "weights.safetensors"
    weights.touch()
    for arguments, sentence in (
        ([], "error: give --hazelnut=DIR or --mtd=DIR"),
        (["--only=dfrr"], "error: --only=dfrr: there are ae, dfr"),
        ([f"--hazelnut={tmp_path}", "--only=dfr"], "error: give --weights=FILE"),
    ):
        command = [
            sys.executable,
            str(FOLDER / "trained.py"),
            f"--json={tmp_path / 'x.json'}",
            "--page=",
            "--curves=",
            *arguments,
        ]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 2 and done.stderr.startswith(sentence), done.stderr
        assert not (tmp_path / "x.json").exists()


def test_what_ended_each_phase(load, tmp_path, monkeypatch):
    trained = load("trained_page")
    values = [max(0, 60 - i) for i in range(160)]
    lines = [{"step": i + 1, "phase": "train", "epoch": 0, "loss": value} for i, value in enumerate(values)]
    lines += [{"step": 161, "phase": "calibrate", "epoch": 0, "scale": 1.0}]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    class Run:
        class spec:
            steps_per_epoch = 4

        class detector:
            @staticmethod
            def phases(spec):
                named = importlib.import_module("iadjax.detector").Phase
                return named("train", None, epochs=100), named("calibrate", None)

    monkeypatch.setattr(trained.iadjax, "load", lambda workdir: Run)
    (found,) = trained.phases(tmp_path)
    assert (found["phase"], found["steps"], found["schedule"], found["stopped_by"]) == ("train", 160, 400, "a flat loss")
    assert found["flat"] and len(found["curve"]) == 60 and found["curve"][:2] == [59.0, 56.0]
