"""The benchmark of a device as a user calls it, at its smoke size; speed itself is never tested."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts/benchmarks/device.py"


def call(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, timeout=300)


def test_the_file_has_every_figure_and_both_sides_agree(tmp_path):
    file = tmp_path / "device.json"
    done = call("--small", "--stages=knn,blur", "--rounds=1", f"--json={file}")
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert {"date", "device", "processor", "versions", "rounds", "small", "ceilings_per_second", "stages"} <= found.keys()
    assert found["versions"].keys() >= {"jax", "jaxlib", "numpy", "python", "torch"}
    assert all(value > 0 for value in found["ceilings_per_second"].values())
    stages = found["stages"]
    assert [row["stage"].split(",")[0].split(" ")[0] for row in stages] == ["k-NN", "k-NN", "upsampling"]
    torch = importlib.util.find_spec("torch") is not None
    for row in stages:
        assert row["stage"] in done.stdout
        assert row["seconds"].keys() == row["first_call_seconds"].keys() == {"iadjax", *(["pytorch"] if torch else [])}
        assert row["achieved_per_second"] == pytest.approx(row["work"] / row["seconds"]["iadjax"])
        assert row["share"] == pytest.approx(row["achieved_per_second"] / found["ceilings_per_second"][row["ceiling"]])
        assert row["agree"] is (True if torch else None)
        assert (row["ratio"] is not None) == torch
        assert all(each <= row["tolerance"] for each in row["difference"].values())


def test_an_unknown_stage_is_refused():
    done = call("--small", "--stages=knn,blurr")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --stages has no stage 'blurr'") and "blur" in done.stderr
    assert "Traceback" not in done.stderr
