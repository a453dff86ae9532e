"""Fits and measures every detector under one protocol; writes the table that docs/benchmarks.md shows.

    python scripts/benchmarks/detectors.py --hazelnut=DIR --mtd=DIR --weights=resnet18.safetensors --workdir=runs/detectors
    python scripts/benchmarks/detectors.py --only=padim,rd4ad --workdir=runs/detectors     # synthetic images, two detectors

Every run is a process of its own: `scripts/train.py` with the overrides of `detector_runs.py`. Fitted runs
in --workdir are not fitted again. Full-length schedules take days on two cores; the overrides shorten them.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

from absl import flags
from detector_command import ROOT, call, listed, override_lines
from detector_cost import parameters, strip
from detector_runs import BENCHMARKS, SETS, overrides

import iadjax
from iadjax import detectors, files, progress
from iadjax.experiment import cli, record

_WORKDIR = flags.DEFINE_string("workdir", "runs/detectors", "Directory of the runs.")
_ONLY = flags.DEFINE_list("only", [], "Detectors to run; all by default.")
_HAZELNUT = flags.DEFINE_string("hazelnut", "", "Folder in the MVTec AD layout: one category.")
_MTD = flags.DEFINE_string("mtd", "", "Folder of MTD.")
_WEIGHTS = flags.DEFINE_string("weights", "", "ResNet-18 weights, safetensors; needed for --hazelnut and --mtd.")
_JSON = flags.DEFINE_string("json", "results/detectors.json", "File for the figures; figures of other runs in it are kept.")
_PAGE = flags.DEFINE_string("page", "docs/benchmarks.md", "The page made of them; empty for none.")
_README = flags.DEFINE_string("readme", "README.md", "File whose table between the marks is replaced; empty for none.")
_PICTURES = flags.DEFINE_string("pictures", "docs/images/detectors", "Folder of a strip for each detector; empty for none.")
_NOTE = flags.DEFINE_string("note", None, "A sentence for the page, in place of the one in it.")
_SETS = flags.DEFINE_list("sets", [], "Which of synthetic, hazelnut_toy and mtd_300; by default those that have a folder.")

KEYS = ("image_auroc", "pixel_auroc", "aupro")


def fit(name: str, dataset: str, workdir: Path) -> None:
    """One run of `scripts/train.py`, unless it is there."""
    if (workdir / "metrics.json").is_file():
        return
    synthetic = "synthetic" if name == "patchcore" else "synthetic,quick"
    argument = {"synthetic": synthetic, "hazelnut_toy": "folder", "mtd_300": "mtd_300"}
    folder = {"synthetic": "", "hazelnut_toy": _HAZELNUT.value, "mtd_300": _MTD.value}[dataset]
    weights = "" if dataset == "synthetic" else _WEIGHTS.value
    command = call(name, argument[dataset], workdir, overrides(name, dataset), folder, weights)
    progress.say(f"{name} on {dataset}")
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise iadjax.UserError(f"{name} on {dataset} failed: {done.stderr.strip().splitlines()[-1]}")


def figures(name: str, dataset: str, workdir: Path) -> dict[str, Any]:
    """What a run wrote, in one row."""
    table = json.loads((workdir / "metrics.json").read_text(encoding="utf-8"))
    run = json.loads((workdir / "run.json").read_text(encoding="utf-8"))
    return {
        **{key: table["mean"][key] for key in KEYS},
        "categories": {key: value["image_auroc"] for key, value in table.items() if key != "mean"},
        "latency_ms": table["mean"]["latency_ms"],
        "fit_seconds": run["wall_seconds"]["fit"],
        "peak_memory_gib": round(run["peak_memory_bytes"] / 2**30, 2),
        "images": run["images"],
        "overrides": listed(overrides(name, dataset)),
        "command": f"configs/{BENCHMARKS[name].config}",
        "backbone": run["weights"].get("backbone", {"name": "none"})["name"],
    }


def cell(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def markdown(results: dict[str, Any]) -> str:
    """The tables, one for each data set."""
    parts = []
    for dataset in SETS:
        rows = {name: each[dataset] for name, each in results["detectors"].items() if dataset in each}
        if not rows:
            continue
        sizes = sorted({f"{row['images']['train']} train, {row['images']['test']} test" for row in rows.values()})
        parts += [f"**{dataset}** ({'; '.join(sizes)})", ""]
        parts.append("| detector | image AUROC | pixel AUROC | AU-PRO .3 | fit s | latency ms | peak GiB |")
        parts.append("|---|---|---|---|---|---|---|")
        for name, row in sorted(rows.items()):
            numbers = [cell(row[key]) for key in KEYS] + [cell(row["fit_seconds"], 0), cell(row.get("latency_ms"), 0)]
            parts.append(f"| {name} | {' | '.join(numbers)} | {cell(row['peak_memory_gib'], 1)} |")
        parts.append("")
    return "\n".join(parts)


def page(results: dict[str, Any]) -> str:
    """docs/benchmarks.md."""
    about = results["about"]
    lines = [
        "# Shortened runs",
        "",
        *([about["note"], ""] if about.get("note") else []),
        "Every detector under one protocol; made by `python scripts/benchmarks/detectors.py`, not by hand. "
        + about["machine"]
        + ".",
        "",
        "Synthetic images: the `quick` form of each config, one model over all six categories, means over categories.",
        "hazelnut_toy and MTD-300: 256 x 256 without crop unless the overrides below say otherwise, ResNet-18 with",
        "torchvision's IMAGENET1K_V1 weights up to layer3. What has no backbone starts from random weights, EfficientAD",
        "from a random teacher. The overrides shorten schedules to minutes, so these figures do not compare papers.",
        "AnomalyDINO and SubspaceAD are fitted on 4 normal images, MuSc on the test images, DevNet also on labelled",
        "anomalies, which leave the test set. AnomalyCLIP and WinCLIP have no row: without CLIP's weights they find",
        "nothing. Pixel metrics are at the resolution of the masks. Latency is that of one image, host to host, after a",
        "warm-up, right after the fit. Peak memory is that of the whole process.",
        "",
        markdown(results),
        "## Maps",
        "",
        "What a value of the map is; larger is more anomalous. The docstring of each detector says the same.",
        "",
        "| detector | map |",
        "|---|---|",
        *(f"| {name} | {detectors.map_unit(name)} |" for name in sorted(detectors.MODULES)),
        "",
        "## Overrides",
        "",
        *override_lines(results["detectors"], SETS[1:], "command"),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    names = _ONLY.value or sorted(BENCHMARKS)
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise iadjax.UserError(f"there is no detector {unknown[0]!r}; valid names: {', '.join(sorted(BENCHMARKS))}")
    if (_HAZELNUT.value or _MTD.value) and not Path(_WEIGHTS.value or "nowhere").is_file():
        raise iadjax.UserError("--hazelnut and --mtd need --weights=FILE, ResNet-18's safetensors")
    sets = _SETS.value or ["synthetic", *(["hazelnut_toy"] if _HAZELNUT.value else []), *(["mtd_300"] if _MTD.value else [])]
    runs = {(name, dataset): Path(_WORKDIR.value) / dataset / name for dataset in sets for name in names}
    for (name, dataset), workdir in runs.items():
        fit(name, dataset, workdir)
    file = Path(_JSON.value)
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"detectors": {}}
    note = results.get("about", {}).get("note", "") if _NOTE.value is None else _NOTE.value
    results["about"] = {**record.about(), "note": note}
    for (name, dataset), workdir in runs.items():
        row = results["detectors"].setdefault(name, {})
        row[dataset] = figures(name, dataset, workdir)
        row["parameters"] = parameters(str(ROOT / "configs" / BENCHMARKS[name].config))
        if _PICTURES.value and dataset == "synthetic":
            with files.replacing(files.place(_PICTURES.value) / f"{name}.jpg") as temporary:
                strip(workdir).save(temporary, format="JPEG", quality=80)
    files.write_json(file, results)
    if _PAGE.value:
        files.write_text(Path(_PAGE.value), page(results))
    if _README.value:
        readme = Path(_README.value)
        files.write_text(readme, files.between_marks(readme.read_text(encoding="utf-8"), "detectors", markdown(results)))
    print(markdown(results))


if __name__ == "__main__":
    cli.run(main)
