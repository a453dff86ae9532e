"""The console command, in the checkout and from a wheel outside of it."""

import importlib.util
import json
import os
import re
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

from iadjax import commands
from iadjax.config import KEYS, base_config, resolve

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "iadjax/commands"
MODULES = {file.stem for file in FOLDER.glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("name", sorted(MODULES))
def test_every_module_is_a_command_and_a_script(name):
    assert name.replace("_", "-") in commands.COMMANDS
    code = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    assert code.startswith('"""') and "\ndef main(" in code and f"python scripts/{name}.py" in code
    assert f'run("{name}")' in (ROOT / "scripts" / f"{name}.py").read_text(encoding="utf-8")


def test_the_console_command_is_the_function():
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]["iadjax"]
    assert entry == "iadjax.commands:main" and callable(commands.main)


def test_without_a_command_they_are_listed_and_an_unknown_one_is_refused(capsys, monkeypatch):
    for words in ([], ["--help"]):
        monkeypatch.setattr(sys, "argv", ["iadjax", *words])
        commands.main()
        out = capsys.readouterr().out
        assert all(f"  {name}  " in out and line in out for name, line in commands.COMMANDS.items())
    monkeypatch.setattr(sys, "argv", ["iadjax", "trian"])
    with pytest.raises(SystemExit) as stop:
        commands.main()
    assert stop.value.code == 2
    assert "there is no command 'trian'; did you mean 'train'" in capsys.readouterr().err.splitlines()[-1]


CALLS = {
    "help": ("train", ["--help", "--config=unsupervised/padim.py:mvtec_ad,category=bottle"]),
    "script help": ("evaluate.py", ["--help"]),
    "list": ("configs", []),
    "print": ("configs", ["unsupervised/patchcore.py:mvtec_ad"]),
    "print quick": ("configs", ["unsupervised/patchcore:mvtec_ad,quick"]),
    "copy": ("configs", ["zero_shot/padim.py", "--copy=copies"]),
    "copy again": ("configs", ["zero_shot/padim.py", "--copy=copies"]),
}
MISTAKES = {
    "copy again": "copies/padim.py is there already",
    "no file": (("configs", ["unsupervised/patchcor.py"]), "there is no config file 'unsupervised/patchcor.py'"),
    "no data set": (("configs", ["unsupervised/patchcore.py:mvtecad"]), "names no data set; did you mean 'mvtec_ad'"),
    "copy nothing": (("configs", ["--copy=x"]), "--copy=DIR needs a config"),
    "two words": (("configs", ["a", "b"]), "unexpected argument 'b'"),
    "no word": (("prepare-data", []), "NAME is missing"),
    "old form": (("train", ["--config=unsupervised/patchcore.py:synthetic:wood"]), "write 'synthetic,category=wood'"),
    "no run": (("evaluate", ["--workdir=nowhere"]), "nowhere holds no run"),
    "unfinished": (("export", ["--workdir=unfinished"]), "fit it with iadjax train --resume"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What the calls say, in one process because starting each takes seconds; and the folder where they ran."""
    folder = tmp_path_factory.mktemp("commands")
    (folder / "unfinished").mkdir()
    (folder / "unfinished/config.json").write_text(json.dumps(resolve(base_config())))
    calls = CALLS | {name: each[0] for name, each in MISTAKES.items() if not isinstance(each, str)}
    (folder / "calls.json").write_text(json.dumps(calls))
    command = [sys.executable, "-m", "tests.experiment.scripts_program", "calls.json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), folder


def test_help_of_train_has_examples_flags_and_the_keys_of_the_config_at_hand(said):
    found = said[0]["help"]
    assert found["status"] == 0 and not found["err"]
    out = found["out"]
    assert "\niadjax train --config=" in out and "scripts/" not in out
    assert "  --[no]resume\n      Continue the run in --workdir." in out
    assert "  data.category = bottle\n" in out and "  detector.num_channels = 550\n      Rd, how many" in out
    shown = set(re.findall(r"^  ([\w.]+) = ", out, re.MULTILINE))
    assert {key for key in KEYS if not key.startswith("data.")} <= shown
    # a script is called as such
    found = said[0]["script help"]
    assert found["status"] == 0 and "\npython scripts/evaluate.py --workdir=runs/mine\n" in found["out"]
    assert "--data.root=" in found["out"] and "keys of this config" not in found["out"]


def test_configs_are_listed_printed_and_copied(said):
    found, folder = said
    listed = found["list"]["out"]
    assert "few_shot/anomalydino.py\n    AnomalyDINO" in listed and "published for: mvtec_ad, visa" in listed
    one = found["print"]["out"]
    assert "  data.crop = 224\n" in one and "published: image_auroc 0.992" in one
    # no published figure beside a quick number
    quick = found["print quick"]
    assert quick["status"] == 0 and "  quick = True\n" in quick["out"] and "published:" not in quick["out"]
    assert found["copy"]["status"] == 0
    assert (folder / "copies/padim.py").read_text() == (ROOT / "configs/zero_shot/padim.py").read_text()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_with_one_sentence_and_status_2(said, name):
    found, folder = said
    sentence = MISTAKES[name] if isinstance(MISTAKES[name], str) else MISTAKES[name][1]
    assert found[name]["status"] == 2 and sentence in found[name]["err"] and found[name]["err"].startswith("error: ")
    assert len(found[name]["err"].strip().splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["calls.json", "copies", "unfinished"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling builds the wheel; install it")
def test_a_wheel_in_an_empty_environment_outside_the_checkout(tmp_path):
    wheel = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    built = subprocess.run(wheel, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    venv.create(tmp_path / "env", with_pip=False, symlinks=True)
    python = tmp_path / "env/bin/python"
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    done = subprocess.run([*install, *(tmp_path / "dist").glob("*.whl")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    # the dependencies are those of this environment; files like the one of an editable install are not read there
    own = next((tmp_path / "env/lib").glob("python*/site-packages"))
    (own / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    place = tmp_path / "elsewhere"
    place.mkdir()
    options = {"cwd": place, "env": {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}}

    def call(*words):
        return subprocess.run([tmp_path / "env/bin/iadjax", *words], capture_output=True, text=True, timeout=300, **options)

    where = subprocess.run([python, "-c", "import iadjax; print(iadjax.__file__)"], capture_output=True, text=True, **options)
    assert where.stdout.startswith(str(own)), where.stderr
    assert (own / "iadjax/configs/unsupervised/patchcore.py").is_file()
    listed = call("configs")
    shown = {line for line in listed.stdout.splitlines() if line.endswith(".py")}
    assert shown == {f"{file.parent.name}/{file.name}" for file in (ROOT / "configs").glob("*/*.py")}
    copied = call("configs", "few_shot/patchcore.py", "--copy=mine")
    assert copied.returncode == 0, copied.stderr
    config = "--config=mine/patchcore.py:synthetic,category=washer,quick,data.resize=48,detector.layers=('layer1',)"
    trained = call("train", config, "--workdir=run")
    assert trained.returncode == 0, trained.stderr
    assert (place / "run/report/index.html").is_file() and "washer" in trained.stdout
