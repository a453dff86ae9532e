"""Damaged inputs: every script ends with status 2 and one sentence, and writes nothing."""

import json
import os
import shutil
import subprocess
import sys

import pytest

import iadjax
from iadjax.config import base_config
from iadjax.errors import UserError
from iadjax.export import export, load_exported
from tests.conftest import draw_tree
from tests.experiment.scripts_program import ROOT

CONFIG = f"{ROOT}/configs/unsupervised/patchcore.py:folder"


def write(name, content):
    return lambda run: (run / name).write_bytes(content)


def cut_checkpoint(run):
    """The arrays' files lose half of their bytes."""
    files = [file for file in (run / "checkpoints").rglob("*") if file.is_file() and file.stat().st_size > 1000]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def drop_metadata(run):
    for file in (run / "checkpoints").rglob("_CHECKPOINT_METADATA"):
        file.write_bytes(b"{")


# what is damaged, and the scripts that read it
LOADING = ("evaluate", "predict", "export")
DAMAGES = {
    "config_cut": (write("config.json", b'{"data": {'), (*LOADING, "submission", "resume")),
    "config_list": (write("config.json", b"[1, 2]"), (*LOADING, "submission", "resume")),
    "config_section": (write("config.json", b'{"data": 3}'), (*LOADING, "submission", "resume")),
    "config_binary": (write("config.json", b"\xff\xfe\x00"), (*LOADING, "submission", "resume")),
    "threshold_cut": (write("threshold.json", b"{"), LOADING),
    "threshold_text": (write("threshold.json", b'{"value": "high"}'), LOADING),
    "threshold_nan": (write("threshold.json", b'{"value": NaN}'), LOADING),
    "threshold_none": (write("threshold.json", b"{}"), LOADING),
    "record_cut": (write("run.json", b"{"), ("evaluate", "resume")),
    "checkpoint_cut": (cut_checkpoint, (*LOADING, "resume")),
    "checkpoint_metadata": (drop_metadata, (*LOADING, "resume")),
    "program_cut": (write("export/detector.stablehlo", b"half of it"), ("predict_exported",)),
    "program_facts": (write("export/detector.stablehlo.json", b'{"format": "stablehlo"}'), ("predict_exported",)),
    "program_facts_cut": (write("export/detector.stablehlo.json", b"{"), ("predict_exported",)),
}


def arguments(script, run, tree, output):
    """The call of a script on a run."""
    return {
        "evaluate": ["evaluate.py", [f"--workdir={run}", f"--output={run}"]],
        "predict": ["predict.py", [f"--workdir={run}", f"--input={tree}/test", f"--output={output}"]],
        "export": ["export.py", [f"--workdir={run}", f"--output={output}"]],
        "submission": ["submission.py", [f"--workdir={run}", f"--output={output}"]],
        "resume": ["train.py", [f"--config={CONFIG}", *FLAGS, f"--config.data.root={tree}", f"--workdir={run}", "--resume"]],
        "predict_exported": [
            "predict.py",
            [f"--model={run}/export/detector.stablehlo", f"--input={tree}/test", f"--output={output}"],
        ],
    }[script]


FLAGS = [
    *("--config.data.resize=32", "--config.data.crop=0", "--config.data.batch_size=4", "--config.data.workers=0"),
    *("--config.detector.layers=('layer1',)", "--config.threshold.holdout=0.2", "--config.backbone.name=filter_bank"),
]


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """What every script says of every damage; the folders are those of the calls."""
    root = tmp_path_factory.mktemp("damage")
    tree = draw_tree(root)
    config = iadjax.config.load_config(CONFIG)
    config.data.update({"root": str(tree), "resize": 32, "crop": 0, "batch_size": 4, "workers": 0})
    config.detector.layers = ("layer1",)
    config.backbone.name = "filter_bank"
    config.threshold.holdout = 0.2
    run = iadjax.fit(config, root / "whole")
    iadjax.evaluate(run, output=root / "whole", speed=False)
    export(run, root / "whole/export", check=2)
    (root / "a_file").write_text("in the way")
    made = {}
    for name, (damage, scripts) in DAMAGES.items():
        for script in scripts:
            copy = root / f"{name}-{script}"
            shutil.copytree(root / "whole", copy)
            damage(copy)
            made[f"{name}-{script}"] = arguments(script, copy, tree, root / f"out-{name}-{script}")
    for script in (*LOADING, "resume", "predict_exported"):
        blocked = root / "a_file" / "below"
        target = blocked if script == "resume" else root / "whole"
        made[f"blocked-{script}"] = arguments(script, target, tree, blocked)
    made["blocked-evaluate"][1][1] = f"--output={root / 'a_file'}"
    made["nobody-predict"] = arguments("predict", "~no_such_user/run", tree, root / "out")
    made["whole-predict"] = arguments("predict", root / "whole", tree, root / "out-whole")
    (root / "calls.json").write_text(json.dumps(made))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.experiment.scripts_program", str(root / "calls.json")],
        capture_output=True, text=True, timeout=600, cwd=ROOT, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout)


NAMES = [f"{name}-{script}" for name, (_, scripts) in DAMAGES.items() for script in scripts]
NAMES += [f"blocked-{script}" for script in (*LOADING, "resume", "predict_exported")] + ["nobody-predict"]


@pytest.mark.parametrize("name", NAMES)
def test_one_sentence_and_nothing_written(calls, name):
    root, said = calls
    status, err = said[name]["status"], said[name]["err"]
    assert status == 2, (status, err)
    lines = err.strip().splitlines()
    assert lines[-1].startswith("error: ") and not any(line.startswith("error") for line in lines[:-1]), err
    assert len(lines[-1]) < 700 and "Traceback" not in err
    assert not (root / f"out-{name}").exists()


def test_the_same_call_on_a_whole_run_works(calls):
    root, said = calls
    assert said["whole-predict"]["status"] == 0, said["whole-predict"]
    assert (root / "out-whole/scores.csv").is_file()


def test_python_users_get_the_same(calls):
    root, _ = calls
    for name in ("config_cut", "threshold_nan", "checkpoint_cut", "checkpoint_metadata"):
        with pytest.raises(UserError):
            iadjax.load(root / f"{name}-predict")
    for name in ("program_cut", "program_facts", "program_facts_cut"):
        with pytest.raises(UserError):
            load_exported(root / f"{name}-predict_exported/export/detector.stablehlo")


def test_a_folder_whose_name_ends_like_a_config(tmp_path, monkeypatch):
    folder = tmp_path / "my.python" / "configs.py"
    folder.mkdir(parents=True)
    (folder / "mine.py").write_text(
        "from iadjax.config import base_config\n\ndef get_config(name='draem'):\n    return base_config(name)\n"
    )
    assert iadjax.config.load_config(f"{folder}/mine.py").detector.name == "draem"
    assert iadjax.config.load_config(f"{folder}/mine.py:padim").detector.name == "padim"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert iadjax.config.load_config("~/my.python/configs.py/mine.py").detector.name == "draem"
    with pytest.raises(UserError, match="there is no config file"):
        iadjax.config.load_config(f"{folder}/mine.pyc")


def test_home_is_understood_in_python(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    draw_tree(tmp_path)
    config = base_config("patchcore", "folder")
    config.data.update({"root": "~/bolt", "resize": 32, "batch_size": 4, "workers": 0})
    config.detector.update({"layers": ("layer1",), "coreset_ratio": 0.1})
    run = iadjax.fit(config, "~/run")
    iadjax.evaluate(run, output="~/result", speed=False)
    iadjax.predict_files(iadjax.load("~/run"), "~/bolt/test", "~/out")
    assert {"run", "result", "out"} <= {path.name for path in tmp_path.iterdir()}
