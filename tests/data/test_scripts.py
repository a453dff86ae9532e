"""prepare_data.py, inspect_data.py and submission.py, as a user calls them."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.trees import draw

ROOT = Path(__file__).parents[2]


def call(script, *arguments):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert "Traceback" not in done.stderr
    return done


def test_describe_prints_the_card():
    done = call("prepare_data.py", "btad", "--describe")
    assert done.returncode == 0
    assert "CC BY-NC-SA 4.0" in done.stdout and "http://avires.dimi.uniud.it" in done.stdout
    assert done.stdout.splitlines()[-1].split() == ["sum", "1799", "451", "290"]


def test_prepare_refuses_then_records(tmp_path):
    draw("btad", tmp_path / "raw")
    arguments = ("btad", f"--manual_dir={tmp_path / 'raw'}", f"--output={tmp_path / 'out'}")
    done = call("prepare_data.py", *arguments)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert "01/train: 2 of 400 images" in done.stderr and "02: left out, because" in done.stderr
    assert "add --allow_incomplete" in done.stderr.splitlines()[-1]
    done = call("prepare_data.py", *arguments, "--allow_incomplete")
    assert done.returncode == 0, done.stderr
    assert f"prepared: {tmp_path / 'out/btad/1.0.0'}" in done.stdout
    assert "warning: 01/train: 2 of 400 images" in done.stderr


def test_inspect_prints_and_writes(tmp_path):
    draw("btad", tmp_path / "raw")
    done = call("inspect_data.py", "btad", f"--root={tmp_path / 'raw'}", "--category=01,03", f"--output={tmp_path / 'out'}")
    assert done.returncode == 0, done.stderr
    assert "test: 4 (good 2, ko 2)" in done.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["01.png", "03.png", "report.json"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("prepare_data.py",), "NAME is missing; --help lists"),
        (("inspect_data.py", "mtd", "more", "--root=/nowhere"), "unexpected argument 'more'"),
        (("submission.py",), "give --workdir=DIR"),
    ],
)
def test_bad_input_ends_with_one_sentence(arguments, sentence):
    done = call(*arguments)
    assert done.returncode == 2 and sentence in done.stderr and done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
