"""The pages name files and links that exist."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from iadjax.commands import COMMANDS
from iadjax.config import KEYS, base_config, load_config
from iadjax.experiment.cli import _check_key
from iadjax.experiment.inputs import KINDS, LEGEND, MARKER
from iadjax.experiment.outputs import SKIPPED
from tests.conftest import draw_tree

ROOT = Path(__file__).parents[1]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), ROOT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            path = (page.parent / target).resolve()
            # the site makes this page of the code
            assert path.exists() or path == ROOT / "docs/detectors.md", f"{page}: {target}"


def test_the_functions_that_an_image_passes_are_where_the_page_says():
    text = (ROOT / "docs/life_of_an_image.md").read_text(encoding="utf-8")
    named = re.findall(r"`(\w+/\w+\.py): ([^`]+)`((?:, `[\w.]+`)*)", text)
    assert len(named) > 10
    for file, names, more in named:
        code = (ROOT / "iadjax" / file).read_text(encoding="utf-8")
        for name in [names, *re.findall(r"`([\w.]+)`", more)]:
            assert re.search(rf"(def|class) {name.split('.')[-1]}\b", code), f"{file}: {name}"
    for folder in re.findall(r"(iadjax/[\w/]+(?:\.py)?)", text):
        assert (ROOT / folder).exists(), folder


def documented_commands():
    """(page, script, words) of every `python scripts/...` in the pages and at the head of scripts and configs."""
    heads = [file for folder in ("scripts", "iadjax/commands", "configs") for file in sorted((ROOT / folder).rglob("*.py"))]
    texts = [(page, page.read_text(encoding="utf-8")) for page in PAGES if page.name not in ("design.md", "speed_history.md")]
    texts += [(file, file.read_text(encoding="utf-8").split('"""')[1]) for file in heads]
    for page, text in texts:
        text = text.replace("\\\n", " ")
        called = re.findall(r"python (scripts/[\w/]+\.py)([^`|#\n]*)", text)
        # the console command has the flags of the script
        names = "|".join(COMMANDS)
        called += [
            (f"scripts/{name.replace('-', '_')}.py", rest)
            for name, rest in re.findall(rf"\biadjax ({names})\b([^`|#\n]*)", text)
        ]
        for script, rest in called:
            # what follows two spaces or a bracket explains
            words = re.split(r"\s{2,}(?=[^-\s])|\s\(|\.\.\.$", rest.rstrip(".,:;) "))[0].split()
            yield page, script, [word.strip("[]") for word in words]


def source_of(script):
    """The code that defines the flags of a script: its own, or that of the command which it runs."""
    command = ROOT / "iadjax/commands" / Path(script).name
    return (command if script.count("/") == 1 and command.is_file() else ROOT / script).read_text(encoding="utf-8")


def test_documented_commands_have_the_flags_of_their_scripts():
    found = list(documented_commands())
    assert len(found) > 60
    shared = (ROOT / "iadjax/experiment/cli.py").read_text(encoding="utf-8")
    for page, script, words in found:
        where = f"{page.relative_to(ROOT)}: python {script} {' '.join(words)}"
        code = source_of(script)
        flags = set(re.findall(r"""DEFINE_\w+\(\s*["'](\w+)["']""", code + shared))
        named = [word for word in words if not word.startswith("-") and word != "&&"]
        # only these take a word without a flag
        assert not named or "ARGUMENTS =" in code or Path(script).stem.endswith("patchcore_torch"), where
        config = base_config()
        for word in words:
            name, _, value = word.removeprefix("--").partition("=")
            if name == "config" and re.match(r"(configs/)?\w+/\w+\.py", value) and "fae" not in value:
                config = load_config(value)
        for word in words:
            name = word.removeprefix("--").partition("=")[0]
            if name.startswith("config."):
                _check_key(config, name.split(".")[1:])
            elif word.startswith("--"):
                assert name in flags or name in ("config", "help"), where


def test_the_page_of_prediction_names_every_flag_and_kind_of_file():
    code = source_of("scripts/predict.py")
    flags = re.findall(r"""DEFINE_\w+\(\s*["'](\w+)["']""", code)
    page = (ROOT / "docs/prediction.md").read_text(encoding="utf-8")
    assert len(flags) == 9 and flags_of_table(page) == set(flags)
    for name in (*KINDS, MARKER, LEGEND, SKIPPED, "names.csv", "scores.csv", "threshold.json"):
        assert name in page, name


def flags_of_table(page):
    return set(re.findall(r"^\| `--(\w+)`", page, re.MULTILINE))


def test_the_page_of_configs_has_every_key_and_its_code_runs():
    page = (ROOT / "docs/configs.md").read_text(encoding="utf-8")
    rows = "".join(f"| `{key}` | {line} |\n" for key, line in KEYS.items())
    assert f"<!-- keys -->\n| key | what it is |\n|---|---|\n{rows}<!-- /keys -->" in page, (
        "the table is not that of config.KEYS"
    )
    space = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(code, "docs/configs.md", "exec"), space)
    assert space["get_config"]("folder,large").data.resize == 512 and space["get_config"]("visa,quick").data.resize == 128


def test_the_front_page_holds_what_its_script_makes():
    command = [sys.executable, str(ROOT / "scripts/front_page.py"), "--check", f"--file={ROOT / 'README.md'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_python_of_the_front_page_runs(tmp_path, monkeypatch):
    """As it stands, but for the folder, and without pretrained weights."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    root = draw_tree(tmp_path)
    here = "backbone.name=filter_bank,data.resize=48,data.crop=0,detector.layers=('layer1',)"
    monkeypatch.chdir(tmp_path)
    for name, source in (("a", "good"), ("b", "dent")):
        shutil.copy(root / f"test/{source}/000.png", tmp_path / f"{name}.png")
    space = {}
    exec(code.replace("data.root=DIR", f"data.root={root},{here}"), space)
    assert space["prediction"].score.shape == (2,) and (tmp_path / "runs/mine/report/index.html").is_file()
