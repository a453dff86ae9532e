"""PatchCore, PaDiM and RD4AD through every protocol that fits them; writes results/settings.json and docs/settings.md.

    python scripts/benchmarks/settings.py --mtd=DIR --weights=resnet18.safetensors
    python scripts/benchmarks/settings.py --only=padim                      synthetic images alone, one detector

Images at 128 x 128 without crop; metrics at the resolution of the masks. MTD-300 with ResNet-18 (IMAGENET1K_V1), PatchCore on
layer2 + layer3, the others on layer1 to layer3; synthetic images with `filter_bank`. RD4AD takes about 50 steps of 8 images
per fit, far fewer than the paper's; its rows show the protocol, not the method. Rows in the JSON file are not run again.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

import iadjax
from iadjax import files, progress
from iadjax.config import base_config, build_data, resolve
from iadjax.data import SEQUENCES
from iadjax.experiment import cli, record
from iadjax.metrics import mean_std

_MTD = flags.DEFINE_string("mtd", "", "Folder of MTD.")
_WEIGHTS = flags.DEFINE_string("weights", "", "ResNet-18 weights, safetensors; needed for --mtd.")
_ONLY = flags.DEFINE_list("only", [], "Detectors to run; all by default.")
_JSON = flags.DEFINE_string("json", "results/settings.json", "File for the figures.")
_PAGE = flags.DEFINE_string("page", "docs/settings.md", "The page made of them; empty for none.")

DETECTORS = ("padim", "patchcore", "rd4ad")
KEYS = ("image_auroc", "pixel_auroc", "aupro")
STEPS = 50

# name, protocol, seeds
SHOTS = [(f"few_shot num_shots={k}", {"name": "few_shot", "num_shots": k}, (0, 1, 2)) for k in (1, 2, 4, 8)]
NOISE = [(f"noisy {ratio:g}", {"name": "noisy", "noise_ratio": ratio}, (0,)) for ratio in (0.05, 0.1, 0.15, 0.2)]
COMMON = [
    ("unsupervised", {"name": "unsupervised"}, (0,)),
    *SHOTS,
    ("few_shot num_shots=4, 4 rotations", {"name": "few_shot", "num_shots": 4, "rotations": 4}, (0, 1, 2)),
    *NOISE,
    ("noisy 0.1, kept in test", {"name": "noisy", "noise_ratio": 0.1, "keep_in_test": True}, (0,)),
    ("batched zero_shot", {"name": "zero_shot", "test_batch": True}, (0,)),
]
SETTINGS = {
    "mtd_300": COMMON,
    "synthetic": [
        ("multi_class", {"name": "multi_class"}, (0,)),
        ("few_shot num_shots=4, one model", {"name": "few_shot", "num_shots": 4}, (0, 1, 2)),
        ("continual", {"name": "continual"}, (0,)),
        (
            "transfer to washer, num_shots=4",
            {"name": "transfer", "source": "capsule,circuit,fabric,granite,wood", "num_shots": 4},
            (0, 1, 2),
        ),
    ],
}


def fits(detector: str, protocol: dict[str, Any]) -> bool:
    """Whether a protocol makes sense for a detector."""
    # in its own bank every test patch has the distance zero
    return not (protocol.get("test_batch") and detector == "patchcore")


def config_of(detector: str, dataset: str, protocol: dict[str, Any], seed: int):
    """The config of one run."""
    config = base_config(detector, dataset)
    config.seed = seed
    config.data.update({"resize": 128, "batch_size": 8})
    config.protocol.update(protocol)
    if dataset == "mtd_300":
        config.data.root = _MTD.value
        config.backbone.update({"name": "resnet18", "weights": _WEIGHTS.value})
    else:
        config.data.category = "washer" if protocol["name"] == "transfer" else "all"
    if detector == "patchcore":
        config.detector.coreset_ratio = 0.05
    if detector == "padim":
        config.detector.num_channels = 100 if dataset == "mtd_300" else 0
    if detector == "rd4ad":
        if protocol["name"] in SEQUENCES:
            images = 54
        else:
            images = len(build_data(resolve(config)).split.train)
        config.detector.epochs = max(1, round(STEPS / -(-images // 8)))
    return config


def one(detector: str, dataset: str, protocol: dict[str, Any], seed: int, workdir: Path) -> dict[str, Any]:
    """Means over categories of `KEYS` for one run, and what only a sequence has."""
    config = config_of(detector, dataset, protocol, seed)
    if protocol["name"] in SEQUENCES:
        _, found = iadjax.fit_sequence(config, workdir)
        matrix = {key: np.array(found["metrics"][key]["matrix"]) for key in KEYS}
        row: dict[str, Any] = {key: float(each[-1].mean()) for key, each in matrix.items()}
        if protocol["name"] == "continual":
            row["forgetting"] = {key: found["metrics"][key]["forgetting"]["average_all"] for key in KEYS}
            row["matrix"] = matrix["image_auroc"].tolist()
        else:
            row["before"] = {key: float(each[0].mean()) for key, each in matrix.items()}
        return row
    table = iadjax.evaluate(iadjax.fit(config, workdir), speed=False)
    return {key: table["mean"][key] for key in KEYS}


def combined(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One entry from the rows of all seeds."""
    entry = {key: mean_std([row[key] for row in rows])._asdict() for key in KEYS}
    return {**entry, "seeds": len(rows), **{key: rows[0][key] for key in ("forgetting", "before", "matrix") if key in rows[0]}}


def cell(entry: dict[str, Any], key: str) -> str:
    spread = f" ± {entry[key]['std']:.3f}" if entry["seeds"] > 1 else ""
    return f"{entry[key]['mean']:.3f}{spread}"


def page(results: dict[str, Any]) -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "Made by `python scripts/benchmarks/settings.py`, not by hand. " + results["about"]["machine"] + ".",
    ]
    lines += ["", *__doc__.split("\n\n")[2].split("\n"), "± is the sample standard deviation over three seeds.", ""]
    for dataset, settings in SETTINGS.items():
        if not any(dataset in each for each in results["settings"].values()):
            continue
        lines += [
            f"## {dataset}",
            "",
            "| protocol | detector | image AUROC | pixel AUROC | AU-PRO .3 | |",
            "|---|---|---|---|---|---|",
        ]
        for name, _, _ in settings:
            for detector in DETECTORS:
                entry = results["settings"].get(detector, {}).get(dataset, {}).get(name)
                if entry is None:
                    continue
                note = ""
                if "forgetting" in entry:
                    note = f"forgetting (over all tasks) {entry['forgetting']['image_auroc']:.3f} image, "
                    note += f"{entry['forgetting']['pixel_auroc']:.3f} pixel"
                if "before" in entry:
                    note = f"before the shots {entry['before']['image_auroc']:.3f} image"
                lines.append(f"| {name} | {detector} | {' | '.join(cell(entry, key) for key in KEYS)} | {note} |")
        lines.append("")
    lines += [
        "PatchCore is not in batched zero-shot: every test patch is in its own bank, at the distance zero. In `continual`",
        "PatchCore chooses the next coreset from the old one and the new patches, RD4AD goes on from its weights, and",
        "PaDiM begins again.",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    names = _ONLY.value or list(DETECTORS)
    unknown = [name for name in names if name not in DETECTORS]
    if unknown:
        raise iadjax.UserError(f"there is no row for {unknown[0]!r}; valid names: {', '.join(DETECTORS)}")
    if _MTD.value and not Path(_WEIGHTS.value or "nowhere").is_file():
        raise iadjax.UserError("--mtd needs --weights=FILE, ResNet-18's safetensors")
    file = Path(_JSON.value)
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"settings": {}}
    results["about"] = record.about()
    for dataset in (["mtd_300"] if _MTD.value else []) + ["synthetic"]:
        for name, protocol, seeds in SETTINGS[dataset]:
            for detector in names:
                rows = results["settings"].setdefault(detector, {}).setdefault(dataset, {})
                if name in rows or not fits(detector, protocol):
                    continue
                progress.say(f"{detector}, {name}, {dataset}")
                # three seeds of a trained network take too long
                used = seeds[:1] if detector == "rd4ad" else seeds
                with tempfile.TemporaryDirectory() as temporary:
                    found = [one(detector, dataset, protocol, seed, Path(temporary) / str(seed)) for seed in used]
                rows[name] = combined(found)
                files.write_json(file, results)
    files.write_json(file, results)
    if _PAGE.value:
        files.write_text(Path(_PAGE.value), page(results))
        print(page(results))


if __name__ == "__main__":
    cli.run(main)
