"""Trains and scores the same images with this library and with anomalib 2.7.0, one after the other, and compares.

    python scripts/benchmarks/peer_anomalib.py --peer_python=peer/bin/python --hazelnut=DIR --mtd=DIR --weights=FILE

anomalib is no dependency: --peer_python is the Python of an environment that can import it. Both sides get the same
images, weights, input size, batches, epochs, optimiser and seed (`peer_cases.py`), and all cores. Each run is a process of its
own, ours first; finished runs in --workdir are kept. Seconds begin before a model is built and after imports, and compilation
counts. Those of an image are the mean over the test images, from files to maps, after a first batch. All figures come from the
scores and maps of both sides by the same exact metrics, at the resolution of the masks.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from peer_cases import CASES, Case
from PIL import Image

from iadjax import config as configs
from iadjax import data, files, metrics, progress
from iadjax.config import load_config
from iadjax.errors import UserError
from iadjax.experiment import cli, record
from iadjax.metrics.protocol import pixel_metrics_within
from iadjax.synthesis.source import image_source

_PEER = flags.DEFINE_string("peer_python", "", "Python that can import anomalib.")
_HAZELNUT = flags.DEFINE_string("hazelnut", "", "Folder in the MVTec AD layout: one category.")
_MTD = flags.DEFINE_string("mtd", "", "Folder of MTD, of which MTD-300 is taken.")
_WEIGHTS = flags.DEFINE_string("weights", "", "ResNet-18 weights, safetensors.")
_ONLY = flags.DEFINE_list("only", [], "Detectors to compare; all by default.")
_SEEDS = flags.DEFINE_integer("seeds", 3, "Seeds of each run.", lower_bound=1)
_WORKDIR = flags.DEFINE_string("workdir", "runs/peer", "Directory of the runs.")
_JSON = flags.DEFINE_string("json", "results/peer_anomalib.json", "File for the figures; figures of other runs in it are kept.")
_NOTE = flags.DEFINE_string("note", "", "A sentence for the page: what a reader of the figures has to know.")
_PAGE = flags.DEFINE_string("page", "docs/peers.md", "The page made of them; empty for none.")

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SETS = ("hazelnut_toy", "mtd_300")
KEYS = ("image_auroc", "pixel_auroc", "aupro")
TITLES = (
    *("detector", "side", "image AUROC", "pixel AUROC", "AU-PRO .3"),
    *("fit s", "compiling s", "s an image", "peak GiB", "faster", "runs"),
)
TEXTURES, WORKERS = 32, 2


def config_of(case: Case, dataset: str, seed: int, textures: Path) -> dict[str, Any]:
    """The resolved config of our side."""
    folder = dataset == "hazelnut_toy"
    config = load_config(f"{ROOT / 'configs' / case.config}:{'folder' if folder else dataset}")
    config.seed = seed
    config.data.update({"root": _HAZELNUT.value if folder else _MTD.value, "resize": case.size, "crop": 0})
    config.data.update({"batch_size": case.batch, "workers": WORKERS})
    config.threshold.holdout = 0.0
    if "backbone" in case.theirs:
        config.backbone.update({"name": "resnet18", "weights": _WEIGHTS.value})
    config.detector.update(case.ours)
    if any(case.epochs):
        config.detector.epochs = case.epochs[not folder]
    if case.model == "Cflow":
        # one meta-epoch is one pass, whose rate is anomalib's
        config.detector.meta_epochs = config.detector.epochs
    if case.coreset:
        config.detector.coreset_ratio = case.coreset[not folder]
    if case.textures:
        config.detector.textures = str(textures)
    return configs.resolve(config.to_dict())


def job_of(name: str, dataset: str, seed: int, workdir: Path) -> tuple[dict[str, Any], configs.Data]:
    """What both sides read, and the images with their masks."""
    case, textures = CASES[name], workdir / "textures"
    config = config_of(case, dataset, seed, textures)
    built = configs.build_data(config)
    theirs = dict(case.theirs)
    if case.coreset:
        theirs["coreset_sampling_ratio"] = config["detector"]["coreset_ratio"]
    if case.textures:
        write_textures(textures)
        theirs["dtd_dir"] = str(textures)
    job = {
        "config": config,
        "model": case.model,
        "theirs": theirs,
        "epochs": config["detector"].get("epochs", 0),
        "train": [str(item.file) for item in built.split.train],
        "test": [str(item.file) for item in built.split.test],
        "batch": case.batch,
        "size": case.size,
        "workers": WORKERS,
        "weights": _WEIGHTS.value,
        "seed": seed,
    }
    return job, built


def side(name: str, python: str, job: dict[str, Any], output: Path, environment: dict[str, str]) -> dict[str, Any]:
    """What a run of one side wrote; runs it, unless the same job is done."""
    made, job = output / "side.json", json.loads(json.dumps(job | {"output": str(output)}))
    if not made.is_file() or json.loads((output / "job.json").read_text(encoding="utf-8")) != job:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
        files.write_json(output / "job.json", job)
        progress.say(f"{output}")
        with (output / "log.txt").open("w", encoding="utf-8") as log:
            command = [python, str(HERE / name), str(output / "job.json")]
            status = subprocess.run(command, stdout=log, stderr=log, env={**os.environ, **environment}).returncode
        if status:
            raise UserError(f"a run ended with status {status}; {output / 'log.txt'} says why")
    return json.loads(made.read_text(encoding="utf-8"))


def figures(found: dict[str, Any], output: Path, built: configs.Data, transform: data.Transform) -> dict[str, float | None]:
    """Accuracy and costs of one run."""
    items = built.split.test
    labels = np.array([item.label for item in items])
    accuracy: dict[str, Any] = dict(metrics.image_metrics(np.array(found["scores"]), labels))
    maps = output / "maps.npy"
    if maps.is_file():
        masks = (data.read(built.dataset, item)[1] for item in items)
        pairs = ((transform.map_back(each, *mask.shape), mask) for each, mask in zip(np.load(maps), masks, strict=True))
        accuracy |= pixel_metrics_within(2**30, pairs)
    return {
        **{key: accuracy.get(key) for key in KEYS},
        "fit_seconds": round(found["fit_seconds"], 2),
        "compile_seconds": found.get("compile_seconds"),
        "seconds_an_image": round(found["predict_seconds"] / len(items), 4),
        "peak_gib": round(found["peak_bytes"] / 2**30, 2),
    }


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over the seeds of each figure."""
    found = {}
    for key in rows[0]:
        values = [row[key] for row in rows if row[key] is not None]
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        found[key] = {"mean": float(np.mean(values)), "std": spread} if values else None
    return found


def compare(name: str, dataset: str, workdir: Path) -> dict[str, Any]:
    """Both sides on all seeds."""
    rows: dict[str, list] = {"ours": [], "anomalib": []}
    for seed in range(_SEEDS.value):
        job, built = job_of(name, dataset, seed, workdir)
        transform = configs.outline_model(job["config"]).transform
        for kind, program, python in (("ours", "peer_ours.py", sys.executable), ("anomalib", "peer_theirs.py", _PEER.value)):
            output = workdir / dataset / name / str(seed) / kind
            found = side(program, python, job, output, CASES[name].environment if kind == "anomalib" else {})
            if kind == "ours" and found["paths"] != [item.path for item in built.split.test]:
                raise RuntimeError("the test images are in another order")
            rows[kind].append(figures(found, output, built, transform))
    print(name, dataset, {kind: each[-1] for kind, each in rows.items()}, flush=True)
    return {
        "seeds": _SEEDS.value,
        "epochs": job["epochs"],
        "batch": job["batch"],
        "size": job["size"],
        "images": {"train": len(job["train"]), "test": len(job["test"])},
        **{kind: summary(each) for kind, each in rows.items()},
    }


def cell(figure: dict[str, Any] | None, digits: int) -> str:
    if figure is None:
        return ""
    spread = "" if figure["std"] is None else f" ± {figure['std']:.{digits}f}"
    return f"{figure['mean']:.{digits}f}{spread}"


def page(results: dict[str, Any]) -> str:
    """docs/peers.md."""
    lines = [
        "# Beside anomalib",
        "",
        "The same images, weights, input size, batches, epochs, optimiser and seeds here and in anomalib "
        f"{results['about']['anomalib']}; made by",
        f"`python scripts/benchmarks/peer_anomalib.py`, not by hand. {results['about']['machine']}. Schedules are short,",
        "so these figures do not compare papers. Figures of both sides come from their scores and maps by the same exact",
        "metrics, at the resolution of the masks. ± is the sample standard deviation over seeds. Seconds of a fit count",
        "compilation, not imports; those of an image go from file to map, in batches. Peak memory is that of the process.",
        "Faster: anomalib's seconds over ours, of the fit and of an image.",
        "",
        *([results["about"]["note"], ""] if results["about"]["note"] else []),
    ]
    for dataset in SETS:
        rows = {name: each[dataset] for name, each in results["detectors"].items() if dataset in each}
        if not rows:
            continue
        lines += [f"**{dataset}**", ""]
        lines += [f"| {' | '.join(TITLES)} |", "|---" * len(TITLES) + "|"]
        for name, row in sorted(rows.items()):
            runs = f"{row['seeds']} x {row['epochs']} epochs" if row["epochs"] else f"{row['seeds']}"
            times = [row["anomalib"][key]["mean"] / row["ours"][key]["mean"] for key in ("fit_seconds", "seconds_an_image")]
            for kind, last in (("ours", [f"{times[0]:.1f}, {times[1]:.1f}", runs]), ("anomalib", ["", ""])):
                figure = row[kind]
                numbers = [cell(figure[key], 3) for key in KEYS]
                costs = (("fit_seconds", 1), ("compile_seconds", 1), ("seconds_an_image", 3), ("peak_gib", 1))
                numbers += [cell(figure[key], digits) for key, digits in costs]
                lines.append(f"| {' | '.join([name if kind == 'ours' else '', kind, *numbers, *last])} |")
        lines.append("")
    lines += [
        "## The other environment",
        "",
        "anomalib is no dependency. An environment of its own that was seen to work, Python 3.11:",
        "",
        "    pip install torch==2.14.1",
        "    pip install --no-deps torchvision==0.29.1 timm==1.0.31 anomalib==2.7.0 kornia kornia_rs open-clip-torch FrEIA",
        "    pip install --no-deps lightning lightning-utilities pytorch-lightning torchmetrics",
        "    pip install pandas scikit-image opencv-python-headless omegaconf 'jsonargparse[signatures]' matplotlib",
        "    pip install platformdirs scikit-learn safetensors huggingface_hub pyyaml rich tqdm einops ftfy regex scipy",
        "",
    ]
    return "\n".join(lines)


def write_textures(folder: Path) -> None:
    """Drawn textures as files, for both sides."""
    draw, rng = image_source(), np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(TEXTURES):
        Image.fromarray(np.round(255 * draw(rng, (256, 256))).astype(np.uint8)).save(folder / f"{i:03d}.png")


def main() -> None:
    names = _ONLY.value or sorted(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise UserError(f"there is no case {unknown[0]!r}; valid names: {', '.join(sorted(CASES))}")
    if not (_HAZELNUT.value or _MTD.value) or not Path(_WEIGHTS.value or "nowhere").is_file():
        raise UserError("give --weights=FILE, ResNet-18's safetensors, and --hazelnut=DIR or --mtd=DIR")
    check = [_PEER.value or "nowhere", "-c", "import anomalib; print(anomalib.__version__)"]
    try:
        version = subprocess.run(check, capture_output=True, text=True, check=True).stdout.split()[-1]
    except (OSError, subprocess.CalledProcessError, IndexError):
        raise UserError(f"--peer_python={_PEER.value} cannot import anomalib; see docs/peers.md") from None
    workdir = Path(_WORKDIR.value).resolve()
    file = Path(_JSON.value)
    results = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"detectors": {}}
    results["about"] = {**record.about(), "anomalib": version, "note": _NOTE.value}
    folders = {"hazelnut_toy": _HAZELNUT.value, "mtd_300": _MTD.value}
    for dataset in (each for each in SETS if folders[each]):
        for name in names:
            # some train too long for two cores
            if any(CASES[name].epochs) and not CASES[name].epochs[SETS.index(dataset)]:
                continue
            results["detectors"].setdefault(name, {})[dataset] = compare(name, dataset, workdir)
            files.write_json(file, results)
    if _PAGE.value:
        files.write_text(Path(_PAGE.value), page(results))


if __name__ == "__main__":
    cli.run(main)
