"""A whole sweep as users call it: two workers, one of which is killed, and a category whose images are damaged."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import draw_tree

ROOT = Path(__file__).parents[2]


def begin(*arguments):
    command = [sys.executable, str(ROOT / "scripts/sweep.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition):
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "it did not happen within two minutes"
        time.sleep(0.05)


def owns(place, worker):
    """Whether a worker has a claim."""
    for file in place.glob("jobs/*/*/*.claim.*"):
        # a run may end just now
        with contextlib.suppress(FileNotFoundError):
            if f'"pid": {worker.pid}' in file.read_text():
                return True
    return False


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A sweep over bolts and over nuts with a damaged image: (directory, the worker that stayed, what both said)."""
    folder = tmp_path_factory.mktemp("sweep")
    root = draw_tree(folder / "images").parent
    shutil.copytree(root / "bolt", root / "nut")
    (root / "nut/train/good/001.png").write_bytes(b"no image")
    config = folder / "mine.py"
    config.write_text(
        "from iadjax.config import base_config\n"
        "def get_config():\n"
        "    config = base_config('patchcore', 'folder')\n"
        "    config.data.update({'resize': 32, 'batch_size': 4, 'workers': 0})\n"
        "    config.detector.layers = ('layer1',)\n"
        "    return config\n"
    )
    place = folder / "sweep"
    flags = [f"--config={config}", "--categories=all", "--seeds=1", f"--config.data.root={root}", f"--workdir={place}"]
    killed, stays = begin(*flags), begin(*flags)
    # both work at the same time, each at a run of its own
    wait_for(lambda: (owns(place, killed) and owns(place, stays)) or None not in (killed.poll(), stays.poll()))
    os.kill(killed.pid, signal.SIGKILL)
    lines = [killed.communicate()[1]]
    output, errors = stays.communicate(timeout=240)
    return place, stays, output, [*lines, errors]


def test_what_a_killed_worker_began_is_finished_by_the_other(swept):
    place, stays, output, (of_killed, of_other) = swept
    assert "Traceback" not in of_other, of_other
    begun = [re.findall(r"sweep: (.*) begins", lines) for lines in (of_killed, of_other)]
    # the run in which the worker was killed was begun twice, the others once
    left = [name for name in begun[0] if f"{name} took" not in of_killed and f"{name} failed" not in of_killed]
    assert len(left) == 1 and left[0] in begun[1]
    assert len(begun[0]) + len(begun[1]) == 3 and len({*begun[0], *begun[1]}) == 2
    (run,) = place.glob("runs/*/bolt/0")
    assert json.loads((run / "metrics.json").read_text())["mean"]["images"] == 4
    assert json.loads((run / "run.json").read_text())["seed"] == 0
    assert not list(place.glob("jobs/*/bolt/*.claim.*"))
    (row,) = json.loads((place / "table.json").read_text())["rows"]
    assert row["runs"] == 1 and row["categories"] == ["bolt"] and row["seeds"] == [0]
    assert "1 of 2 finished" in of_other


def test_a_failed_run_is_reported_and_the_others_are_kept(swept):
    place, stays, output, (_, errors) = swept
    assert stays.returncode == 1
    (file,) = place.glob("jobs/*/nut/0.failed.json")
    assert "001.png" in json.loads(file.read_text())["sentence"]
    assert errors.count("failed: ") >= 1 and "1 of 2 runs finished, 1 failed" in errors
    for name in ("table.md", "index.html"):
        assert "001.png" in (place / name).read_text()
    assert "image AUROC" in output and f"page: {place / 'index.html'}" in output


def test_a_directory_that_holds_other_runs_is_refused(swept):
    place, *_ = swept
    runs = next(place.glob("runs/*"))
    before = sorted(runs.rglob("*"))
    called = begin("--config=configs/unsupervised/patchcore.py", f"--workdir={runs}")
    _, errors = called.communicate()
    assert called.returncode == 2 and "holds other files (bolt) and no sweep; give another --workdir" in errors
    assert sorted(runs.rglob("*")) == before
