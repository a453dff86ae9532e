"""Lists the shipped configs; prints the keys of one; copies one out for editing.

python scripts/configs.py
python scripts/configs.py unsupervised/patchcore.py:mvtec_ad,category=bottle          (its keys, values and what they are)
python scripts/configs.py unsupervised/patchcore.py --copy=DIR                        (DIR/patchcore.py, to be edited)
"""

import ast
import shutil

from absl import flags

from iadjax import files
from iadjax.config import Row, find_config, listing, load_config, published, resolve, shipped
from iadjax.errors import UserError

ARGUMENTS = ("[CONFIG]",)

_COPY = flags.DEFINE_string("copy", None, "Folder that the config is copied to.")


def main(config: str | None = None) -> None:
    if config is None:
        if _COPY.value is not None:
            raise UserError("--copy=DIR needs a config, like unsupervised/patchcore.py; without one they are listed")
        print(_table())
        return
    file, argument = find_config(config)
    if _COPY.value is None:
        found = load_config(f"{file}:{argument}")
        # what a run would refuse
        resolve(found)
        rows = [row for row in published(str(file)) if row.dataset == found.data.name and not found.quick]
        print("\n".join([listing(found), *(_row(row) for row in rows)]))
        return
    target = files.place(_COPY.value) / file.name
    if target.exists():
        raise UserError(f"{target} is there already; give --copy another folder, or delete it first")
    with files.replacing(target) as temporary:
        shutil.copyfile(file, temporary)
    print(f"copied: {target}; run it by --config={target}{':' + argument if argument else ''}")


def _row(row: Row) -> str:
    """A published row as text."""
    figures = ", ".join(f"{key} {value:.3f}" for key, value in row.metrics.items())
    notes = f" ({row.notes})" if row.notes else ""
    return f"\npublished: {figures}\n    by {row.source}{notes}\n    with the argument {row.arg or row.dataset}"


def _table() -> str:
    """One entry for each shipped config: name, first line of its docstring, data sets with published rows."""
    lines = []
    for name, file in shipped().items():
        doc = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
        sets = dict.fromkeys(row.dataset for row in published(name))
        lines += [name, f"    {doc.splitlines()[0]}", f"    published for: {', '.join(sets) or 'nothing'}"]
    return "\n".join([*lines, "", "argument: FILE.py:DATASET[,category=NAME][,quick][,KEY=VALUE...]"])
