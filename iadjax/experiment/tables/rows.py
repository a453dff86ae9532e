"""Rows of a table: runs of the same config and data together, means over categories, spread over seeds."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from iadjax import config as configs
from iadjax.experiment.tables.collect import Figures
from iadjax.experiment.tables.published import all_categories, beside, differing

__all__ = ["METRICS", "SPEED", "make_rows"]

METRICS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "aupro": "AU-PRO .3",
    "aupro_05": "AU-PRO .05",
}
SPEED = {"latency_ms": "ms/image", "throughput_ips": "images/s", "peak_gib": "peak GiB", "fit_seconds": "fit s"}

# of protocols that draw other images with every seed
_DRAWING = ("few_shot", "noisy", "supervised")


def make_rows(runs: Sequence[Figures], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """One row for every config and its data, by detector and data set.

    Runs are in one row if nothing differs but the seed, the category and the places of files; and if runs of the same category
    saw the same images and were judged on the same split.

    Args:
      runs: of `collect`.
      say: takes a line about runs that count twice.

    Returns:
      `table.json`'s rows: {"config", "detector", "dataset", "categories", "seeds", "metrics": {key: {"mean", "std"}}, "speed",
      "published", "keys", "by_category", ...}.
    """
    groups: dict[str, list[Figures]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_identity(run), sort_keys=True), []).append(run)
    rows = [_row(part, say) for group in groups.values() for part in _by_images(group)]
    rows.sort(key=lambda row: (row["dataset"], row["detector"], row["config"]))
    _tell_apart(rows)
    return rows


def _identity(run: Figures) -> dict[str, Any]:
    keys = {key: value for key, value in configs.fit_keys(run.config).items() if key not in ("seed", "data.category")}
    sweep = run.record.get("sweep") or {}
    # of one sweep of a config, which sets them by category
    keys |= {key: "by category" for key in sweep.get("by_category", ()) if key in keys}
    judged = {key: run.config["evaluate"][key] for key in ("eval_size", "map_sigma", "pixel")} | {
        "quick": run.config.get("quick")
    }
    own = {key: run.config["data"].get(key) for key in ("root", "normal", "abnormal")} if _is_folder(run) else {}
    weights = {name: each["hash"] for name, each in run.record.get("weights", {}).items()}
    return {"fit": keys, "judged": judged, "own": own, "weights": weights, "split": _split(run), "search": sweep.get("search")}


def _is_folder(run: Figures) -> bool:
    return run.config["data"]["name"] == "folder"


def _split(run: Figures) -> str:
    """What a run was judged on, by the number of images."""
    number = sum(each.get("images") or 0 for each in run.categories.values())
    return "test" if number == run.record.get("images", {}).get("test") else f"{number} images that are not its test part"


def _by_images(group: Sequence[Figures]) -> list[list[Figures]]:
    """A group parted so that in each part all runs of a category saw the same images."""
    parts: list[tuple[dict[str, str], list[Figures]]] = []
    for run in sorted(group, key=lambda run: str(run.path)):
        name = ",".join(run.categories)
        draws = run.config["protocol"]["name"] in _DRAWING
        images = "drawn" if draws else run.record.get("fingerprint_parts", {}).get("data", "")
        for known, members in parts:
            if known.setdefault(name, images) == images:
                members.append(run)
                break
        else:
            parts.append(({name: images}, [run]))
    return [members for _, members in parts]


def _row(runs: Sequence[Figures], say: Callable[[str], None]) -> dict[str, Any]:
    cells: dict[tuple[int, str], tuple[Figures, dict[str, Any]]] = {}
    for run in sorted(runs, key=lambda run: run.record.get("started", "")):
        for category, metrics in run.categories.items():
            key = (run.config["seed"], category)
            if key in cells:
                say(f"two runs of {category} with seed {key[0]}: {run.path} counts, {cells[key][0].path} does not")
            cells[key] = run, metrics
    used = list({id(run): run for run, _ in cells.values()}.values())
    first = used[0]
    categories = sorted({category for _, category in cells})
    seeds = sorted({seed for seed, _ in cells})
    complete = [seed for seed in seeds if all((seed, category) in cells for category in categories)]
    values = {key: {cell: each.get(key) for cell, (_, each) in cells.items()} for key in METRICS}
    row = {
        "config": _title(first),
        "detector": first.config["detector"]["name"],
        "dataset": first.config["data"]["name"],
        "setting": first.config["protocol"]["name"],
        "quick": bool(first.config.get("quick")),
        "categories": categories,
        "seeds": seeds,
        "runs": len(used),
        "metrics": {key: _mean_and_spread(values[key], categories, complete) for key in METRICS},
        "speed": _speed(used, [each for _, each in cells.values()]),
        "devices": dict(Counter(_device(run) for run in used)),
        "search": (first.record.get("sweep") or {}).get("search"),
        "notes": [],
        "keys": _identity(first)["fit"],
        "by_category": {
            category: {key: _known([values[key].get((seed, category)) for seed in seeds]) for key in METRICS}
            for category in categories
        },
    }
    if len(complete) < len(seeds):
        missing = [f"{category} seed {seed}" for seed in seeds for category in categories if (seed, category) not in cells]
        kept = f"the mean is over the seeds {complete}" if complete else "the mean is over the runs that are there"
        row["notes"].append(f"missing: {', '.join(missing[:4])}{' and more' if len(missing) > 4 else ''}; {kept}")
    if _split(first) != "test":
        row["notes"].append(f"judged on {_split(first)}")
    if row["search"]:
        row["notes"].append(row["search"])
    row["published"] = _published(first, row)
    return row


def _title(run: Figures) -> str:
    name = (run.record.get("sweep") or {}).get("config") or f"{run.config['protocol']['name']}/{run.config['detector']['name']}"
    return name.removeprefix("configs/")


def _mean_and_spread(
    cells: Mapping[tuple[int, str], Any], categories: Sequence[str], complete: Sequence[int]
) -> dict[str, float | None]:
    """Mean over categories and seeds, and the sample standard deviation over seeds of the category means."""
    if not complete:
        means = [_known([value for (_, each), value in cells.items() if each == category]) for category in categories]
        return {"mean": _known(means), "std": None}
    by_seed = [_known([cells[seed, category] for category in categories]) for seed in complete]
    known = [each for each in by_seed if each is not None]
    return {"mean": _known(by_seed), "std": float(np.std(known, ddof=1)) if len(known) > 1 else None}


def _known(values: Sequence[float | None]) -> float | None:
    """The mean of the numbers that are there."""
    numbers = [each for each in values if each is not None]
    return float(np.mean(numbers)) if numbers else None


def _speed(runs: Sequence[Figures], metrics: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    peaks = [_peak(run.record) for run in runs]
    return {
        "latency_ms": _known([each.get("latency_ms") for each in metrics]),
        "throughput_ips": _known([each.get("throughput_ips") for each in metrics]),
        "peak_gib": max((each / 2**30 for each in peaks if each), default=None),
        "fit_seconds": _known([run.record.get("wall_seconds", {}).get("fit") for run in runs]),
    }


def _peak(record: Mapping[str, Any]) -> int | None:
    """Bytes of the accelerator where there is one, else of the process."""
    return record.get("peak_device_memory_bytes") or record.get("peak_memory_bytes")


def _device(run: Figures) -> str:
    kind = run.record.get("device", {}).get("kind", "unknown")
    return f"{kind} {run.record.get('processor', '')}".strip() if kind == "cpu" else kind


def _published(run: Figures, row: Mapping[str, Any]) -> dict[str, Any] | None:
    found = beside(run)
    if found is None:
        return None
    differs = differing(found, run.config)
    everything = all_categories(row["dataset"])
    if everything and set(row["categories"]) != set(everything):
        differs.append(f"{len(row['categories'])} of {len(everything)} categories")
    if _split(run) != "test":
        differs.append(f"judged on {_split(run)}")
    if row["search"]:
        differs.append("options by a search")
    measured = {key: row["metrics"][key]["mean"] for key in found.metrics if key in row["metrics"]}
    return {
        "metrics": dict(found.metrics),
        "difference": {key: value - found.metrics[key] for key, value in measured.items() if value is not None},
        "source": found.source,
        "differs": differs,
        "notes": found.notes,
    }


def _tell_apart(rows: Sequence[dict[str, Any]]) -> None:
    """Gives rows that would have the same name the few keys in which they differ, or numbers."""
    names: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        names.setdefault((row["config"], row["dataset"]), []).append(row)
    for same in [each for each in names.values() if len(each) > 1]:
        keys = [key for key in same[0]["keys"] if any(row["keys"].get(key) != same[0]["keys"][key] for row in same)]
        told = [", ".join(f"{key}={row['keys'].get(key)}" for key in keys) for row in same]
        few = len(keys) <= 2 and len(set(told)) == len(same)
        for number, (row, text) in enumerate(zip(same, told, strict=True), start=1):
            if keys and not few:
                row["notes"].append(f"its keys: {text}")
            elif not keys:
                row["notes"].append("another row has the same config; it differs in images, split, evaluation or search")
            row["config"] += f", {text}" if few else f" ({number})"
