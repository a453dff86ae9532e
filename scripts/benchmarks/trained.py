"""Trains detectors until their published schedule ends or their loss is flat, and writes the table of docs/trained.md.

    python scripts/benchmarks/trained.py --hazelnut=DIR --mtd=DIR --weights=resnet18.safetensors --workdir=runs/trained
    python scripts/benchmarks/trained.py --only=dfr,ganomaly --sets=hazelnut_toy --hazelnut=DIR --weights=FILE --seeds=3

Every run is a process of its own: `scripts/train.py` with the settings of `trained_cases.py`. A run that was stopped goes on,
and one that is done is not made again. Hours are usual.
"""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from detector_command import call, listed
from detector_runs import BENCHMARKS
from trained_cases import SCHEDULES, SETS, settings
from trained_page import KEYS, file_name, page, phases, picture, row

from iadjax import files, progress
from iadjax.errors import UserError
from iadjax.experiment import cli, record

_WORKDIR = flags.DEFINE_string("workdir", "runs/trained", "Directory of the runs.")
_ONLY = flags.DEFINE_list("only", [], "Detectors to train; all by default.")
_SETS = flags.DEFINE_list("sets", [], "Which of hazelnut_toy, mtd_300 and mtd; by default those that have a folder.")
_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds of each run.", lower_bound=1)
_HAZELNUT = flags.DEFINE_string("hazelnut", "", "Folder in the MVTec AD layout: one category.")
_MTD = flags.DEFINE_string("mtd", "", "Folder of MTD.")
_WEIGHTS = flags.DEFINE_string("weights", "", "ResNet-18 weights, safetensors.")
_IMAGES = flags.DEFINE_string("images", "", "Folder of other images: textures of DRAEM, penalty images of EfficientAD.")
_WORKERS = flags.DEFINE_integer("workers", 2, "Threads of a run that read images.", lower_bound=0)
_CHECKPOINT = flags.DEFINE_integer("checkpoint_every", 100, "Steps between two checkpoints.", lower_bound=1)
_JSON = flags.DEFINE_string("json", "results/trained.json", "File for the figures; figures of other runs in it are kept.")
_PAGE = flags.DEFINE_string("page", "docs/trained.md", "The page made of them; empty for none.")
_NOTE = flags.DEFINE_string("note", None, "A sentence for the page, in place of the one in it.")
_CURVES = flags.DEFINE_string("curves", "images/trained", "Folder of the curves, beside the page; empty for none.")


def train(name: str, dataset: str, seed: int, workdir: Path) -> None:
    """One run of `scripts/train.py`, unless it is done."""
    if (workdir / "metrics.json").is_file():
        return
    argument = "folder" if dataset == "hazelnut_toy" else dataset
    folder = _HAZELNUT.value if dataset == "hazelnut_toy" else _MTD.value
    changed = {**settings(name, dataset), "seed": seed, **_given(name)}
    changed |= {"data.workers": _WORKERS.value, "checkpoint_every": _CHECKPOINT.value}
    command = call(name, argument, workdir, changed, folder, _WEIGHTS.value)
    progress.say(f"{name} on {dataset}, seed {seed}")
    # its own lines say how far it is
    status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
    if status:
        raise UserError(f"{name} on {dataset} ended with status {status}; the lines above say why, and it can go on")


def _given(name: str) -> dict[str, str]:
    """The config key that takes the folder of other images."""
    keys = {"draem": "detector.textures", "efficientad": "detector.penalty_images"}
    return {keys[name]: _IMAGES.value} if name in keys and _IMAGES.value else {}


def figures(name: str, dataset: str, workdirs: list[Path]) -> dict[str, Any]:
    """A row: means and standard deviations over the seeds, costs of the first."""
    tables = [json.loads((workdir / "metrics.json").read_text(encoding="utf-8"))["mean"] for workdir in workdirs]
    run = json.loads((workdirs[0] / "run.json").read_text(encoding="utf-8"))
    accuracy = {}
    for key in KEYS:
        values = [table[key] for table in tables]
        if values[0] is not None:
            std = float(np.std(values, ddof=1)) if len(values) > 1 else None
            accuracy[key] = {"mean": float(np.mean(values)), "std": std}
    return {
        "seeds": len(workdirs),
        "accuracy": accuracy,
        "fit_seconds": run["wall_seconds"]["fit"],
        "latency_ms": tables[0]["latency_ms"],
        "images_per_second": tables[0]["throughput_ips"],
        "peak_memory_gib": round(run["peak_memory_bytes"] / 2**30, 2),
        "images": run["images"],
        "machine": run["processor"] if run["device"]["platform"] == "cpu" else run["device"]["kind"],
        "phases": phases(workdirs[0]),
        "config": f"configs/{BENCHMARKS[name].config}",
        "overrides": listed(settings(name, dataset) | {key: Path(value).name for key, value in _given(name).items()}),
    }


def main() -> None:
    names = _ONLY.value or list(SCHEDULES)
    folders = {"hazelnut_toy": _HAZELNUT.value, "mtd_300": _MTD.value, "mtd": _MTD.value}
    sets = _SETS.value or [name for name, folder in folders.items() if folder]
    for given, known, flag in ((names, SCHEDULES, "only"), (sets, SETS, "sets")):
        unknown = [each for each in given if each not in known]
        if unknown:
            raise UserError(f"--{flag}={unknown[0]}: there are {', '.join(known)}")
    if not sets or not all(folders[each] for each in sets):
        raise UserError("give --hazelnut=DIR or --mtd=DIR, the folders of the images")
    if any(BENCHMARKS[name].pretrained for name in names) and not Path(_WEIGHTS.value or "nowhere").is_file():
        raise UserError("give --weights=FILE, ResNet-18's safetensors")
    file = Path(_JSON.value)
    for name in names:
        for dataset in sets:
            workdirs = [Path(_WORKDIR.value) / dataset / f"{name}_{seed}" for seed in range(_SEEDS.value)]
            for seed, workdir in enumerate(workdirs):
                train(name, dataset, seed, workdir)
            # after each row, because the next one may take hours
            results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"detectors": {}}
            note = results.get("about", {}).get("note", "") if _NOTE.value is None else _NOTE.value
            results["about"] = {"versions": record.versions(), "note": note}
            found = figures(name, dataset, workdirs)
            results["detectors"].setdefault(name, {})[dataset] = found
            files.write_json(file, results)
            if _PAGE.value:
                for phase in found["phases"] if _CURVES.value else ():
                    files.write_text(Path(_PAGE.value).parent / _CURVES.value / file_name(name, dataset, phase), picture(phase))
                files.write_text(Path(_PAGE.value), page(results, _CURVES.value))
            print(row(name, found), flush=True)


if __name__ == "__main__":
    cli.run(main)
