"""Fits and measures every detector under one protocol; writes the table that docs/benchmarks.md shows.

    python scripts/benchmarks/detectors.py --hazelnut=DIR --mtd=DIR --weights=resnet18.safetensors --workdir=runs/detectors
    python scripts/benchmarks/detectors.py --only=padim,rd4ad --workdir=runs/detectors     # synthetic images, two detectors

Every run is a process of its own: `scripts/train.py` with the overrides that stand in `BENCHMARKS` and on the page. Fitted runs
in --workdir are not fitted again. Full-length schedules take days on two cores; the overrides shorten them, and the page says
to what.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

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

_NOTE = flags.DEFINE_string("note", "", "A sentence for the page, such as what else the machine did meanwhile.")
_SETS = flags.DEFINE_list("sets", [], "Which of synthetic, hazelnut_toy and mtd_300; by default those that have a folder.")

ROOT = Path(__file__).parents[2]
SETS = ("synthetic", "hazelnut_toy", "mtd_300")
KEYS = ("image_auroc", "pixel_auroc", "aupro")


class Benchmark(NamedTuple):
    """One row of the table.

    Attributes:
      config: the config file, below configs/.
      real: overrides on real images; the quick form of the config runs on synthetic ones as it is.
      hazelnut, mtd: further ones on each.
      pretrained: whether the backbone takes ResNet-18's weights.
    """

    config: str
    real: dict[str, Any] = {}
    hazelnut: dict[str, Any] = {}
    mtd: dict[str, Any] = {}
    pretrained: bool = True


BENCHMARKS = {
    "anomalydino": Benchmark(
        "few_shot/anomalydino.py", {"protocol.num_shots": 4, "detector.layers": ("layer2", "layer3")}, {"detector.rotations": 8}
    ),
    "cfa": Benchmark(
        "unsupervised/cfa.py",
        {"data.crop": 0},
        {"detector.epochs": 10},
        {"detector.epochs": 2},
    ),
    "cflow": Benchmark(
        "unsupervised/cflow.py",
        {"detector.layers": ("layer2", "layer3"), "detector.meta_epochs": 4, "data.batch_size": 8},
        {"detector.epochs": 12},
        {"detector.epochs": 4},
    ),
    "csflow": Benchmark(
        "unsupervised/csflow.py",
        {"detector.layer": "layer3", "detector.hidden": 128, "data.batch_size": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "cutpaste": Benchmark(
        "unsupervised/cutpaste.py",
        {"detector.layers": ("layer3",), "detector.patch": 64, "detector.stride": 16, "data.batch_size": 16},
        {"detector.steps": 100},
        {"detector.steps": 60},
    ),
    "destseg": Benchmark(
        "unsupervised/destseg.py",
        {"detector.width": 16, "detector.hidden": 64, "data.batch_size": 8},
        {"detector.student_steps": 60, "detector.segment_steps": 100, "data.resize": 128},
        {"detector.student_steps": 30, "detector.segment_steps": 60, "data.resize": 128},
    ),
    "devnet": Benchmark(
        "supervised/devnet.py",
        {"detector.layers": ("layer3",), "detector.steps": 60, "detector.decay_every": 40, "data.batch_size": 12},
        {"protocol.num_anomalies": 5},
    ),
    "dfm": Benchmark("unsupervised/dfm.py"),
    "differnet": Benchmark(
        "unsupervised/differnet.py",
        {"detector.layers": ("layer3",), "detector.hidden": 512, "detector.gradient_map": False, "data.batch_size": 8},
        {"detector.epochs": 10, "detector.rotations": 16},
        {"detector.epochs": 2, "detector.rotations": 4},
    ),
    "dinomaly": Benchmark(
        "unsupervised/dinomaly.py",
        {"detector.layers": ("layer2",), "detector.groups": 1, "detector.dropout": 0.4, "data.crop": 0, "data.batch_size": 8},
        {"detector.steps": 300},
        {"detector.steps": 300},
    ),
    "draem": Benchmark(
        "unsupervised/draem.py",
        {"detector.width": 16, "detector.segment_width": 16, "detector.learning_rate": 2e-3, "data.batch_size": 8},
        {"detector.epochs": 20, "data.resize": 128},
        {"detector.epochs": 2, "data.resize": 128},
        pretrained=False,
    ),
    "efficientad": Benchmark(
        "unsupervised/efficientad.py",
        {"detector.steps": 60, "detector.learning_rate": 5e-4, "data.batch_size": 1, "backbone.weights": "random"},
        mtd={"detector.steps": 30, "data.resize": 128},
        pretrained=False,
    ),
    "fastflow": Benchmark(
        "unsupervised/fastflow.py",
        {"detector.conv3x3_only": True, "data.batch_size": 8},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "foundad": Benchmark(
        "few_shot/foundad.py",
        {"protocol.num_shots": 4, "detector.layers": ("layer2", "layer3"), "detector.epochs": 200, "data.batch_size": 4},
        {"data.category": ""},
    ),
    "fre": Benchmark("unsupervised/fre.py", {}, {"detector.epochs": 40}, {"detector.epochs": 10}),
    "gaussian_ad": Benchmark("unsupervised/gaussian_ad.py", {"detector.layers": ("layer1", "layer2", "layer3")}),
    "generalad": Benchmark(
        "unsupervised/generalad.py",
        {"detector.layers": ("layer2", "layer3"), "detector.hidden": 512, "data.batch_size": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "glass": Benchmark(
        "unsupervised/glass.py",
        {"detector.pretrain_dimension": 384, "detector.target_dimension": 384},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "inpformer": Benchmark(
        "unsupervised/inpformer.py",
        {"detector.layers": ("layer2",), "detector.groups": 1, "data.crop": 0, "data.batch_size": 8, "detector.warmup": 20},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "memseg": Benchmark(
        "unsupervised/memseg.py",
        {"detector.layers": ("relu", "layer1", "layer2", "layer3")},
        {"detector.steps": 100, "data.resize": 128},
        {"detector.steps": 60, "data.resize": 128},
    ),
    "mh_patchcore": Benchmark("unsupervised/mh_patchcore.py", {"data.crop": 0}),
    "mkd": Benchmark(
        "unsupervised/mkd.py",
        {"detector.layers": ("layer1", "layer2", "layer3"), "data.batch_size": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "msflow": Benchmark(
        "unsupervised/msflow.py",
        {"detector.blocks": (2, 2, 2), "data.batch_size": 8},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "musc": Benchmark(
        "zero_shot/musc.py",
        {"detector.layers": ("layer2", "layer3"), "detector.class_layer": "layer3", "detector.normalize_class": True},
    ),
    "padim": Benchmark("unsupervised/padim.py", {"detector.num_channels": 100, "data.crop": 0}),
    "panda": Benchmark(
        "unsupervised/panda.py",
        {"detector.layers": ("layer3",), "detector.trained": ("layer3",), "data.crop": 0, "data.batch_size": 16},
        {"detector.epochs": 5},
        {"detector.epochs": 1},
    ),
    "patchcore": Benchmark("unsupervised/patchcore.py", {}, {"detector.coreset_ratio": 0.1}, {"detector.coreset_ratio": 0.01}),
    "patchsvdd": Benchmark(
        "unsupervised/patchsvdd.py",
        {"data.batch_size": 8, "detector.pairs": 4, "detector.learning_rate": 1e-3, "detector.small_stride": 8},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
        pretrained=False,
    ),
    "rad": Benchmark(
        "multi_class/rad.py", {"detector.layers": ("layer2", "layer3"), "detector.class_layer": "layer3", "data.crop": 0}
    ),
    "rd4ad": Benchmark(
        "unsupervised/rd4ad.py", {"data.batch_size": 8}, {"detector.epochs": 12}, {"detector.epochs": 2}
    ),
    "rdpp": Benchmark("unsupervised/rdpp.py", {"data.batch_size": 8}, {"detector.epochs": 12}, {"detector.epochs": 2}),
    "reconpatch": Benchmark(
        "unsupervised/reconpatch.py",
        {"data.crop": 0, "data.batch_size": 4, "detector.coreset_ratio": 0.05},
        {"detector.epochs": 4, "detector.learning_rate": 1e-3},
        {"detector.epochs": 1, "detector.learning_rate": 1e-3},
    ),
    "simplenet": Benchmark(
        "unsupervised/simplenet.py",
        {"detector.pretrain_dimension": 384, "detector.target_dimension": 384, "data.crop": 0},
        {"detector.epochs": 20},
        {"detector.epochs": 4},
    ),
    "softpatch": Benchmark("unsupervised/softpatch.py", {"detector.embedding": "pool", "data.crop": 0}),
    "spade": Benchmark("unsupervised/spade.py", {"detector.class_layer": "layer3", "data.crop": 0}),
    "stpm": Benchmark("unsupervised/stpm.py", {"data.batch_size": 8}, {"detector.epochs": 20}, {"detector.epochs": 4}),
    "subspacead": Benchmark(
        "few_shot/subspacead.py",
        {"protocol.num_shots": 4, "detector.layers": ("layer2", "layer3"), "detector.aggregation": "concatenate"},
    ),
    "superad": Benchmark(
        "unsupervised/superad.py", {"detector.layers": ("layer2", "layer3"), "detector.class_layer": "layer3"}
    ),
    "superadd": Benchmark(
        "unsupervised/superadd.py",
        {"detector.layers": ("layer2", "layer3"), "detector.tile": 128, "detector.overlap": 32, "detector.bank_size": 10_000},
    ),
    "supersimplenet": Benchmark(
        "unsupervised/supersimplenet.py",
        {"data.batch_size": 8, "detector.hidden": 256},
        {"detector.epochs": 12},
        {"detector.epochs": 2},
    ),
    "uniad": Benchmark(
        "multi_class/uniad.py",
        {
            "detector.layers": ("layer1", "layer2", "layer3"),
            "data.resize": 224,
            "data.batch_size": 8,
            "detector.learning_rate": 4e-4,
        },
        {"detector.epochs": 40, "data.category": ""},
        {"detector.epochs": 4},
    ),
}  # fmt: skip


def overrides(name: str, dataset: str) -> dict[str, Any]:
    """What the run of a detector on a data set changes in its config."""
    benchmark = BENCHMARKS[name]
    if dataset == "synthetic":
        return {}
    changed = {"data.resize": 256, **benchmark.real, **(benchmark.mtd if dataset == "mtd_300" else benchmark.hazelnut)}
    if benchmark.pretrained:
        changed["backbone.name"] = "resnet18"
    return changed


def fit(name: str, dataset: str, workdir: Path) -> None:
    """One run of `scripts/train.py`, unless it is there."""
    if (workdir / "metrics.json").is_file():
        return
    synthetic = "synthetic" if name == "patchcore" else "synthetic,quick"
    argument = {"synthetic": synthetic, "hazelnut_toy": "folder", "mtd_300": "mtd_300"}
    command = [sys.executable, str(ROOT / "scripts/train.py"), f"--workdir={workdir}"]
    command.append(f"--config={ROOT / 'configs' / BENCHMARKS[name].config}:{argument[dataset]}")
    command += [f"--config.{key}={value}" for key, value in overrides(name, dataset).items()]
    if dataset != "synthetic":
        command.append(f"--config.data.root={_HAZELNUT.value if dataset == 'hazelnut_toy' else _MTD.value}")
        command += [f"--config.backbone.weights={_WEIGHTS.value}"] if BENCHMARKS[name].pretrained else []
    if workdir.is_dir():
        command.append("--resume")
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
        "overrides": {
            key: list(value) if isinstance(value, tuple) else value for key, value in overrides(name, dataset).items()
        },
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
        "hazelnut_toy and MTD-300: 256 x 256 without crop (UniAD 224, DRAEM and on MTD-300 EfficientAD 128), ResNet-18",
        "with torchvision's IMAGENET1K_V1 weights up to layer3. DRAEM starts from random weights, EfficientAD from a",
        "random teacher. The overrides below shorten schedules to minutes, so these figures do not compare papers.",
        "AnomalyDINO and SubspaceAD are fitted on 4 normal images, MuSc on the test images, DevNet also on labelled",
        "anomalies, which leave the test set. Pixel",
        "metrics are at the resolution of the masks. Latency is that of one image, host to host, after a warm-up, right",
        "after the fit. Peak memory is that of the whole process.",
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
        "| detector | config | data | overrides |",
        "|---|---|---|---|",
    ]
    for name, each in sorted(results["detectors"].items()):
        for dataset in SETS[1:]:
            if dataset in each:
                text = " ".join(f"`{key}={value}`" for key, value in each[dataset]["overrides"].items())
                lines.append(f"| {name} | {each[dataset]['command']} | {dataset} | {text} |")
    return "\n".join(lines) + "\n"


def replace_table(file: Path, table: str) -> None:
    """Puts the table between the marks in a page."""
    begin, end = "<!-- detectors -->\n", "<!-- /detectors -->"
    text = file.read_text(encoding="utf-8")
    if begin not in text or end not in text:
        raise iadjax.UserError(f"{file} has no marks {begin.strip()} and {end}; add them or give --readme=")
    head, rest = text.split(begin, 1)
    files.write_text(file, head + begin + table + end + rest.split(end, 1)[1])


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
    results["about"] = record.about()
    results["about"]["note"] = _NOTE.value
    for (name, dataset), workdir in runs.items():
        results["detectors"].setdefault(name, {})[dataset] = figures(name, dataset, workdir)
    files.write_json(file, results)
    if _PAGE.value:
        files.write_text(Path(_PAGE.value), page(results))
    if _README.value:
        replace_table(Path(_README.value), markdown(results))
    print(markdown(results))


if __name__ == "__main__":
    cli.run(main)
