"""The process of one run: how it ends is what its worker says; it ends with its worker."""

import json
import os
import subprocess
import sys
import time

import pytest

from iadjax.errors import UserError
from iadjax.experiment.fit import Stopped
from iadjax.experiment.sweep import claims, process


@pytest.fixture
def call(tmp_path, monkeypatch):
    """A function that runs Python lines as the process of a task."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    claim = claims.take(tmp_path / "jobs/task", 60)

    def run(lines, stale=60.0):
        (tmp_path / "lines.py").write_text(lines)
        return process.call(["lines", "word"], tmp_path / "log", tmp_path / "why.json", claim, stale)

    return run


def test_what_the_end_of_a_process_means(call, tmp_path):
    assert call("import sys; print(sys.argv[1])").failure is None
    assert (tmp_path / "log").read_text() == "word\n"
    say = f"open({str(tmp_path / 'why.json')!r}, 'w').write({json.dumps({'sentence': 'the disk is full'})!r})"
    assert call(f"{say}; raise SystemExit(2)").failure == "the disk is full"
    # the sentence of an earlier time says nothing
    assert "ended with status 2" in call("raise SystemExit(2)").failure
    assert "signal 9 (too little memory?)" in call("import os; os.kill(os.getpid(), 9)").failure
    with pytest.raises(Stopped, match="same --workdir"):
        call("raise SystemExit(130)")


def test_the_claim_is_touched_and_a_lost_one_ends_the_process(call, tmp_path):
    file = tmp_path / "jobs/task.claim.0"
    os.utime(file, (1, 1))
    call("import time; time.sleep(0.5)", stale=1.0)
    assert time.time() - file.stat().st_mtime < 30
    (tmp_path / "jobs/task.claim.1").write_text("{}")
    began = time.monotonic()
    with pytest.raises(UserError, match="another worker took this one for dead.*--stale_seconds"):
        call("import time; time.sleep(60)", stale=1.0)
    assert time.monotonic() - began < 30


def test_a_process_ends_with_its_worker(tmp_path):
    # a worker that is killed at once leaves a process that would live for a minute
    child = (
        "import time; from iadjax.experiment.sweep.process import end_with_parent; end_with_parent();"
        f"open({str(tmp_path / 'alive')!r}, 'w').close(); time.sleep(60)"
    )
    begin = f"subprocess.Popen([sys.executable, '-c', {child!r}])"
    worker = f"import subprocess, sys, time; print({begin}.pid, flush=True); time.sleep(60)"
    process_of_worker = subprocess.Popen([sys.executable, "-c", worker], stdout=subprocess.PIPE, text=True)
    pid = int(process_of_worker.stdout.readline())
    end = time.monotonic() + 60
    while not (tmp_path / "alive").exists():
        assert time.monotonic() < end
        time.sleep(0.05)
    process_of_worker.kill()
    process_of_worker.communicate()
    end = time.monotonic() + 20
    while is_alive(pid):
        assert time.monotonic() < end, "the process outlived its worker"
        time.sleep(0.05)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            # a process that nobody has waited for is no longer alive
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
