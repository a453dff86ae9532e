"""The programs for TPU slices: what is read from a compiled program, and two programs compiled where libtpu is."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "scripts/benchmarks"
LIBTPU = importlib.util.find_spec("libtpu") is not None

# lines as the compiler writes them: synchronous, asynchronous, of two arrays
HLO = """
%all-gather.4 = f32[12544,1024]{1,0:T(8,128)S(1)} all-gather(%copy.11), channel_id=1, dimensions={0}
%all_to_all.9 = s32[16,1,7056]{2,1,0:T(1,128)S(1)} all-to-all(%reshape.188), channel_id=1
%start = (bf16[8,2]{1,0}, bf16[128,2]{1,0}) all-gather-start(%x), channel_id=2
%done = bf16[128,2]{1,0} all-gather-done(%start)
%all-reduce.1 = (f32[10]{0}, pred[4]{0}) all-reduce(%a, %b), channel_id=3
%add = f32[10]{0} add(%a, %b)
"""


def run(*arguments):
    command = [sys.executable, FOLDER / "pod.py", "--page=", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def test_bytes_of_collectives_are_read_from_the_program():
    code = f"import pod; print(pod.collectives({HLO!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=FOLDER)
    sizes = {"all-gather": 4 * 12544 * 1024 + 2 * 128 * 2, "all-to-all": 4 * 16 * 7056, "all-reduce": 40 + 4}
    assert done.stdout.strip() == str(sizes), done.stderr


def test_bad_input_ends_with_one_sentence(tmp_path):
    done = run("--only=knnn", f"--json={tmp_path / 'pod.json'}")
    assert done.returncode == 2 and done.stderr.startswith("error: --only=knnn: the programs are knn, coreset"), done.stderr
    if not LIBTPU:
        done = run("--only=knn", f"--json={tmp_path / 'pod.json'}")
        assert (
            done.returncode == 2 and done.stderr == 'error: the compiler of TPUs is not installed; pip install "iadjax[pod]"\n'
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(not LIBTPU, reason="the compiler of TPUs is not installed")
def test_two_programs_take_what_the_cost_model_says(tmp_path):
    path = tmp_path / "pod.json"
    done = run("--topologies=v5e:2x2", "--only=knn,padim", f"--json={path}")
    assert done.returncode == 0, done.stderr
    rows = json.loads(path.read_text())["slices"]["v5e:2x2"]
    assert set(rows) == {"knn", "padim"}
    for row in rows.values():
        assert row["fits"]
        for kind, tolerance in (("gflop", 0.1), ("argument_mb", 0.02)):
            assert row[kind]["compiler"] == pytest.approx(row[kind]["model"], rel=tolerance)
        # nothing as large as the bank is gathered
        assert sum(row["collectives_mb"].values()) < 2 * row["sent_mb"] + 1
    # finished rows are not made again
    before = path.read_bytes()
    assert run("--topologies=v5e:2x2", "--only=knn", f"--json={path}").returncode == 0
    assert path.read_bytes() == before
