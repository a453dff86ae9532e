"""The scripts as a user calls them: status, sentences, files."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def call(script, *arguments):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("scripts") / "run"
    arguments = ["--config.data.resize=(64, 48)", "--config.detector.layers=('layer1',)", "--config.evaluate.save_maps=true"]
    done = call(
        "train.py",
        *arguments,
        f"--config={ROOT}/configs/unsupervised/patchcore.py:synthetic,category=washer",
        f"--workdir={workdir}",
    )
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_train_prints_metrics_and_the_report(trained):
    workdir, done = trained
    assert "washer" in done.stdout and "image" in done.stdout
    assert f"report: {workdir / 'report' / 'index.html'}" in done.stdout
    assert json.loads((workdir / "config.json").read_text())["data"]["resize"] == [64, 48]
    assert "Traceback" not in done.stderr and "orbax" not in done.stderr.lower()


def test_evaluate_and_predict(trained, tmp_path):
    workdir, _ = trained
    before = json.loads((workdir / "metrics.json").read_text())
    again = call("evaluate.py", f"--workdir={workdir}", f"--output={tmp_path / 'again'}")
    assert again.returncode == 0, again.stderr
    after = json.loads((tmp_path / "again/metrics.json").read_text())
    speed = ("latency_ms", "throughput_ips")
    assert {k: v for k, v in after["washer"].items() if k not in speed} == {
        k: v for k, v in before["washer"].items() if k not in speed
    }
    predicted = call("predict.py", f"--workdir={workdir}", f"--input={workdir / 'report'}", f"--output={tmp_path / 'out'}")
    assert predicted.returncode == 0, predicted.stderr
    assert (tmp_path / "out/scores.csv").read_text().startswith("path,score,anomalous\n")


def test_evaluate_files_of_a_run_agrees(trained, tmp_path):
    import numpy as np
    from PIL import Image

    from iadjax import data

    workdir, _ = trained
    found = data.load("synthetic", category="washer")
    for item in found.test:
        path = tmp_path / "masks" / item.path
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 * found.read(item)[1].astype(np.uint8)).save(path)
    done = call(
        "evaluate.py",
        f"--scores={workdir}/scores.csv",
        f"--maps={workdir}/maps",
        f"--masks={tmp_path}/masks",
        f"--output={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    files, run = (json.loads((path / "metrics.json").read_text())["washer"] for path in (tmp_path, workdir))
    for key in ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_05", "aupro_01"):
        assert files[key] == pytest.approx(run[key], abs=1e-6), key


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--config.detector.coreset_rato=0.1"],
            "no key 'detector.coreset_rato' under 'detector'; did you mean 'coreset_ratio'",
        ),
        (["--config.detector.coreset_ratio=much"], "could not convert string to float"),
        (["--config=nowhere.py"], "there is no config file 'nowhere.py'"),
        (["--config.data.category=wod"], "there is no category 'wod'; did you mean 'wood'"),
        (["--wrkdir=x"], "Unknown command line flag 'wrkdir'. Did you mean: workdir"),
    ],
)
def test_a_mistake_ends_with_one_sentence_and_status_2(tmp_path, arguments, sentence):
    done = call("train.py", f"--workdir={tmp_path / 'run'}", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr and done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
