"""Imports go one way, so that a newcomer can read the code from the bottom up."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# the package itself: what users import
TOP = "iadjax"

# each room may import from its own level and from those before it
LEVELS = (
    ("errors", "files", "progress", "parallel.axis", "cpu"),
    ("ops", "nn"),
    ("losses", "backbones"),
    ("detector",),
    ("data",),
    ("synthesis",),
    ("detectors", "metrics", "parallel"),
    ("report", "config"),
    ("experiment", "export"),
    (TOP,),
    ("commands",),
)
LEVEL = {room: number for number, level in enumerate(LEVELS) for room in level}


def room(module: str) -> str:
    """ "iadjax.ops.rows" -> "ops"."""
    parts = module.split(".")[1:]
    return "parallel.axis" if parts[:2] == ["parallel", "axis"] else parts[0] if parts else TOP


def imports(file: Path) -> list[tuple[str, int, bool]]:
    """(module, line, whether it stands inside a function) of every import of our own."""
    tree = ast.parse(file.read_text())
    outer = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == TOP:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            # a name may be a module or a thing in one: either way its room is the same, but for those in `iadjax` itself
            found += [(name, node.lineno, id(node) not in outer) for name in names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, id(node) not in outer) for alias in node.names if alias.name.startswith(TOP)]
    return found


FILES = sorted(file for file in (ROOT / TOP).rglob("*.py") if file != ROOT / TOP / "__init__.py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_go_one_way(file):
    own = room(".".join(file.relative_to(ROOT).with_suffix("").parts))
    assert own in LEVEL, f"{file} lies in a room that LEVELS does not know"
    for module, line, inside in imports(file):
        assert not inside, f"{file}:{line} imports {module} inside a function"
        assert LEVEL[room(module)] <= LEVEL[own], f"{file}:{line}: {own} may not import {module}"


def test_no_detector_imports_another():
    folder = ROOT / TOP / "detectors"
    for file in folder.rglob("*.py"):
        if file.parent in (folder, folder / "families", folder / "pytorch"):
            continue
        for module, line, _ in imports(file):
            parts = module.split(".")
            assert parts[1] != "detectors" or parts[2] == "families", f"{file}:{line} imports {module}"
