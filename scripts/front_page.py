"""The parts of the README that are made of data: the measured ratios, and the table of detectors.

python scripts/front_page.py             # writes them between the marks of README.md
python scripts/front_page.py --check     # says whether README.md holds them, with status 1 if not
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from iadjax import detectors, files
from iadjax.config import published
from iadjax.experiment import cli

_FILE = flags.DEFINE_string("file", "README.md", "The page.")
_CHECK = flags.DEFINE_boolean("check", False, "Write nothing.")

ROOT = Path(__file__).parents[1]


def _results(name: str) -> dict[str, Any]:
    return files.read_json(ROOT / "results" / f"{name}.json", "make it again with its script in scripts/benchmarks/")


def ratios() -> str:
    """What is faster, by how much, and where the figures are."""
    ops, metrics, whole = _results("ops_cpu"), _results("metrics_cpu"), _results("patchcore_cpu")
    coreset = [row["ratio_to_iadjax"]["PyTorch single picks"] for name, row in ops["results"].items() if "feature-like" in name]
    exact = metrics["exact"]
    rows = [
        ("greedy coreset, the picks of the plain loop", coreset, "PyTorch", "ops_cpu"),
        ("exact pixel AUROC, AP and F1-max", [exact["pixel_times_faster"]], "scikit-learn", "metrics_cpu"),
        ("exact AU-PRO", [exact["aupro_times_faster"]], "a NumPy sort", "metrics_cpu"),
        ("PatchCore end to end, from files to metrics", [whole["ratio"]], "the same in PyTorch", "patchcore_cpu"),
    ]
    lines = ["| on two CPU cores, side by side in one run | times as fast | as |", "|---|---|---|"]
    for what, values, other, name in rows:
        low, high = min(values), max(values)
        times = f"{low:.1f}" if len(values) == 1 else f"{low:.0f} to {high:.0f}"
        lines.append(f"| {what} | [{times}](results/{name}.json) | {other} |")
    return "\n".join(lines) + "\n"


def _paper(name: str) -> tuple[str, str]:
    """The name of a detector as its paper has it, and its arXiv number or venue."""
    title, rest = detectors.heading(name).split(":", 1)
    where = rest.rsplit("(", 1)[1].rstrip(").")
    number = where.rsplit(" ", 1)[1]
    link = f"[{where}](https://arxiv.org/abs/{number})" if number[:4].isdigit() and number[4:5] == "." else where
    return title, link


def _quoted(config: str) -> str:
    """The first row that a config quotes for MVTec AD."""
    for row in published(str(ROOT / config)):
        if row.dataset == "mvtec_ad" and "image_auroc" in row.metrics:
            return _figures(row.metrics)
    return "none quoted"


def _figures(metrics: Mapping[str, float | None]) -> str:
    """Image AUROC, and pixel AUROC where there are maps."""
    found = (metrics.get(name) for name in ("image_auroc", "pixel_auroc"))
    return " / ".join(f"{value:.3f}" for value in found if value is not None)


def _measured(name: str) -> str:
    """What a whole schedule reached here on MTD-300; runs that were cut short do not count."""
    row = _results("detectors")["detectors"].get(name, {}).get("mtd_300")
    shortened = row is None or any(key.split(".")[-1] in ("epochs", "steps") for key in row["overrides"])
    return "not measured" if shortened else _figures(row)


def _notebook(name: str) -> str:
    """The first notebook that uses a detector."""
    for file in sorted((ROOT / "colab").glob("*.ipynb")):
        source = "".join(line for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] for line in cell["source"])
        if f'"{name}"' in source or f"/{name}.py" in source:
            return f"[{file.stem[:2]}](colab/{file.name})"
    return ""


def table() -> str:
    """One row for each detector."""
    lines = [
        "| detector | paper | config | published, MVTec AD | measured here, MTD-300, ResNet-18 | notebook |",
        "|---|---|---|---|---|---|",
    ]
    for name in sorted(detectors.MODULES):
        title, paper = _paper(name)
        configs = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").glob(f"*/{name}.py"))
        links = " ".join(f"[{config.split('/')[1]}]({config})" for config in configs)
        main = next((config for config in configs if "unsupervised" in config), configs[0])
        lines.append(f"| {title} | {paper} | {links} | {_quoted(main)} | {_measured(name)} | {_notebook(name)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    path = files.place(_FILE.value)
    text = path.read_text(encoding="utf-8")
    made = files.between_marks(files.between_marks(text, "ratios", ratios()), "detectors", table())
    if _CHECK.value:
        print("up to date" if made == text else f"{path} is out of date: python scripts/front_page.py")
        sys.exit(int(made != text))
    files.write_text(path, made)
    print(f"written: {path}")


if __name__ == "__main__":
    cli.run(main)
