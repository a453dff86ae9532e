"""docs/adding_a_detector.md is run as it stands: its files are written, its other blocks executed in their order."""

import importlib.util
import re
import sys
from pathlib import Path

from iadjax import detectors

PAGE = Path(__file__).parent.parent / "docs/adding_a_detector.md"


def test_the_page_runs(tmp_path, monkeypatch):
    blocks = re.findall(r"```python(?: file=(\S+))?\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detectors, "MODULES", dict(detectors.MODULES))
    space = {"__name__": "tutorial"}
    for file, code in blocks:
        if file:
            path = tmp_path / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(code, encoding="utf-8")
            if file.startswith("iadjax/"):
                name = file.removesuffix(".py").replace("/", ".")
                spec = importlib.util.spec_from_file_location(name, path)
                module = importlib.util.module_from_spec(spec)
                monkeypatch.setitem(sys.modules, name, module)
                spec.loader.exec_module(module)
        else:
            exec(compile(code, str(PAGE), "exec"), space)
    assert {file for file, _ in blocks if file} == {
        "iadjax/detectors/autoencoder/fae.py",
        "configs/unsupervised/fae.py",
    }
    assert (tmp_path / "runs/fae/report/index.html").is_file()
    lines = next(code for file, code in blocks if file.startswith("iadjax/")).splitlines()
    assert len([line for line in lines if line.strip()]) <= 60
    from tests.detectors.test_contract import CASES

    assert set(space["CASE"]) == {"fae"} and "fae" not in CASES
