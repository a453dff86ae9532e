"""Tables of any runs, with published figures beside them: Markdown, JSON, LaTeX and HTML.

python scripts/table.py runs --output=tables                (folders below are searched)
python scripts/table.py SWEEP runs/mine --output=DIR
"""

from absl import flags

from iadjax import files, progress
from iadjax.errors import UserError
from iadjax.experiment import tables

ARGUMENTS = ("RUNS...",)

_OUTPUT = flags.DEFINE_string("output", None, "Where table.md, table.json, table.tex and index.html go.")


def main(*runs: str) -> None:
    if _OUTPUT.value is None:
        raise UserError("give --output=DIR, where table.md, table.json, table.tex and index.html go")
    output = files.place(_OUTPUT.value)
    tables.write_tables(runs, output, progress.say)
    print((output / "table.md").read_text(encoding="utf-8").partition("\n## ")[0])
    print(f"page: {output / 'index.html'}")
