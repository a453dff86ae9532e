"""`table.json`, `table.md`, `table.tex` and `index.html` of runs."""

import html
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from iadjax import files
from iadjax.experiment.tables import cells
from iadjax.experiment.tables.collect import collect
from iadjax.experiment.tables.rows import make_rows

__all__ = ["latex", "markdown", "page", "write_tables"]


def write_tables(
    places: Sequence[str | Path], output: str | Path, say: Callable[[str], None], failed: dict[str, str] | None = None
) -> list[dict[str, Any]]:
    """Writes the tables of the runs in directories.

    Args:
      places: directories of runs, or folders that hold them.
      output: where `table.md`, `table.json`, `table.tex` and `index.html` go.
      say: takes lines about runs that are left out.
      failed: the sentence of every run that failed, by its name.

    Returns:
      The rows, as `table.json` holds them.

    Raises:
      UserError: there are no runs, or a file of one is damaged; nothing is written then.
    """
    rows, failed = make_rows(collect(places, say), say), failed or {}
    texts = {
        "table.json": json.dumps({"caption": cells.CAPTION, "rows": rows, "failed": failed}, indent=2) + "\n",
        "table.md": markdown(rows, failed),
        "table.tex": latex(rows),
        "index.html": page(rows, failed),
    }
    for name, text in texts.items():
        files.write_text(files.place(output) / name, text)
    return rows


def markdown(rows: Sequence[dict[str, Any]], failed: dict[str, str]) -> str:
    """The tables as Markdown."""

    def table(head: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> str:
        rule = ["---"] * left + ["---:"] * (len(head) - left)
        return "\n".join("| " + " | ".join(each.replace("|", "\\|") for each in line) + " |" for line in [head, rule, *lines])

    parts = ["# Measured", cells.CAPTION, table(cells.header(), [line for _, line in cells.body(rows)], 3)]
    parts += ["\n".join(f"- {note}" for note in cells.notes(rows))] if cells.notes(rows) else []
    if failed:
        parts += ["## Failed", "\n".join(f"- {name}: {why}" for name, why in failed.items())]
    for row in rows:
        head, lines = cells.by_category(row)
        parts += [f"## {row['config']} on {row['dataset']}, by category", table(head, lines, 1)]
    return "\n\n".join(parts) + "\n"


_TEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"}
_TEX |= {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "±": r"$\pm$", "×": r"$\times$"}


def latex(rows: Sequence[dict[str, Any]]) -> str:
    """The table as LaTeX, for `\\usepackage{booktabs}`; it is wide, so for `table*` or a page on its side."""

    def text(value: str) -> str:
        return "".join(_TEX.get(letter, letter) for letter in value)

    def line(words: Sequence[str]) -> str:
        return "  " + " & ".join(text(word) for word in words) + r" \\"

    lines = []
    for kind, words in cells.body(rows):
        if kind == "run" and lines:
            lines.append(r"  \midrule")
        lines.append(line(words))
    head = cells.header()
    remarks = "".join(f"% {note}\n" for note in cells.notes(rows))
    return "\n".join(
        [
            f"{remarks}\\begin{{tabular}}{{lll{'r' * (len(head) - 4)}l}}",
            r"  \toprule",
            line(head),
            r"  \midrule",
            *lines,
            r"  \bottomrule",
            r"\end{tabular}",
            f"% {cells.CAPTION}\n",
        ]
    )


def page(rows: Sequence[dict[str, Any]], failed: dict[str, str]) -> str:
    """The tables as one HTML page that needs no other file."""

    def table(head: Sequence[str], lines: Sequence[tuple[str, Sequence[str]]]) -> str:
        titles = "".join(f'<th scope="col">{html.escape(each).replace("AU-", "AU&#8209;")}</th>' for each in head)
        body = "".join(
            f'<tr class="{kind}"><th scope="row">{html.escape(words[0])}</th>'
            + "".join(_cell(title, word) for title, word in zip(head[1:], words[1:], strict=True))
            + "</tr>"
            for kind, words in lines
        )
        return f'<div class="scroll"><table><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>'

    parts = [f"<p>{html.escape(cells.CAPTION)}</p>", table(cells.header(), cells.body(rows))]
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in cells.notes(rows))
    parts += [f"<h2>Notes</h2><ul>{notes}</ul>"] if notes else []
    if failed:
        why = "".join(f"<li><b>{html.escape(name)}</b>: {html.escape(each)}</li>" for name, each in failed.items())
        parts.append(f"<h2>Failed</h2><ul>{why}</ul>")
    parts.append("<h2>By category</h2>")
    for row in rows:
        head, lines = cells.by_category(row)
        title = html.escape(f"{row['config']} on {row['dataset']}")
        opened = " open" if len(rows) == 1 else ""
        parts.append(f"<details{opened}><summary>{title}</summary>{table(head, [('run', each) for each in lines])}</details>")
    return _PAGE.replace("BODY", "\n".join(parts))


def _cell(title: str, word: str) -> str:
    """A cell with the title of its column, which narrow screens show, and the spread below the mean."""
    mean, plus, spread = word.partition(" ± ")
    text = html.escape(mean) + (f"<small> ± {html.escape(spread)}</small>" if plus else "")
    return f'<td data-title="{html.escape(title, quote=True)}"{"" if word else " class=empty"}><span>{text}</span></td>'


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Measured</title>
<style>
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --page: #fff; }
@media (prefers-color-scheme: dark) { :root { --page: #121212; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 100rem; margin: 0 auto; padding: 1rem; background: var(--page); }
p, ul { max-width: 60rem; }
li { overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; }
th, td { padding: 0.35rem 0.5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
thead th { vertical-align: bottom; white-space: normal; background: var(--soft); }
thead th:first-child, thead th:nth-child(2), td[data-title=data] { text-align: left; }
tbody th { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; max-width: 18rem; }
td[data-title=device] { white-space: normal; font-size: 0.8rem; }
td small { display: block; opacity: 0.75; }
tbody th { text-align: left; font-weight: 600; position: sticky; left: 0; background: var(--page); }
tr.published th, tr.difference th { font-weight: 400; padding-left: 1.5rem; }
tr.published th { white-space: normal; min-width: 12rem; }
tr.published td, tr.difference td { opacity: 0.8; }
details { margin: 0.5rem 0; }
summary { cursor: pointer; padding: 0.3rem 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) {
  thead { display: none; }
  table, tbody, tr, th, td { display: block; }
  tr { border-top: 2px solid var(--line); padding: 0.4rem 0; }
  tr.published, tr.difference { border-top: 0; padding-left: 1rem; }
  tbody th { position: static; white-space: normal; overflow-wrap: anywhere; }
  tbody th, td { border-bottom: 0; padding: 0.1rem 0; }
  tr.published th, tr.difference th { padding-left: 0; font-style: italic; }
  td { display: flex; justify-content: space-between; gap: 1rem; }
  td::before { content: attr(data-title); opacity: 0.7; }
  td small { display: inline; }
  td.empty { display: none; }
}
</style>
</head>
<body>
<h1>Measured</h1>
BODY
</body>
</html>
"""
