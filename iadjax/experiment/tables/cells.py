"""The text of a table's cells, the same in every format."""

from collections.abc import Mapping, Sequence
from typing import Any

from iadjax.experiment.tables.rows import METRICS, SPEED

__all__ = ["CAPTION", "body", "by_category", "header", "notes"]

CAPTION = (
    "Mean over categories and seeds; ± is the sample standard deviation over seeds of the mean over categories. "
    "Published figures stand below with their source; the difference is measured minus published. "
    "Latency, throughput and fit time are means over the runs, memory is the largest peak."
)


def header() -> list[str]:
    """The titles of the columns."""
    return ["config", "data", "categories × seeds", *METRICS.values(), *SPEED.values(), "device"]


def body(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """(kind, cells) of every line: "run", and below it "published" and "difference" where there is a published row."""
    lines = []
    for row in rows:
        found, speed = row["metrics"], row["speed"]
        name = f"{row['config']}{', quick' if row['quick'] and 'quick' not in row['config'] else ''}"
        size = f"{len(row['categories'])} × {len(row['seeds'])}"
        figures = [_spread(found[key]) for key in METRICS]
        speeds = [_number(speed[key], 1 if key != "peak_gib" else 2) for key in SPEED]
        lines.append(("run", [name, row["dataset"], size, *figures, *speeds, ", ".join(row["devices"])]))
        quoted = row["published"]
        if quoted:
            blank = [""] * (len(SPEED) + 1)
            published = [_number(quoted["metrics"].get(key), 4) if key in quoted["metrics"] else "" for key in METRICS]
            difference = [_signed(quoted["difference"].get(key)) for key in METRICS]
            lines.append(("published", [f"published: {quoted['source']}", "", "", *published, *blank]))
            lines.append(("difference", ["difference", "", "", *difference, *blank]))
    return lines


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a reader of the figures has to know, a sentence each: other protocols, missing runs, a search."""
    found = []
    for row in rows:
        about = list(row["notes"])
        if row["quick"]:
            about.append("a shortened run (quick), which is not compared with published figures")
        if row["published"]:
            differs = row["published"]["differs"]
            about.append(f"protocol differs from the published one: {'; '.join(differs)}" if differs else "published protocol")
            if row["published"]["notes"]:
                about.append(f"published row: {row['published']['notes']}")
        found += [f"{row['config']} on {row['dataset']}: {each}" for each in about]
    return found


def by_category(row: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and lines of the table of one row's categories, means over the seeds."""
    lines = [[category, *(_number(each[key], 4) for key in METRICS)] for category, each in row["by_category"].items()]
    return ["category", *METRICS.values()], lines


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"


def _spread(value: Mapping[str, float | None]) -> str:
    text = _number(value["mean"], 4)
    return text if value["std"] is None else f"{text} ± {value['std']:.4f}"
