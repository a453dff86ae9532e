"""Several fits, one after another, on one state: continual learning and transfer.

Every step is an ordinary run in its own directory. It begins with the state of the step before (`Detector.warm_start`); there
is no other access to the past. So a stopped sequence resumes as a run does.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iadjax import config as configs
from iadjax import data, files, metrics, progress
from iadjax.data import SEQUENCES
from iadjax.errors import UserError, did_you_mean
from iadjax.experiment import places
from iadjax.experiment.evaluate import evaluate
from iadjax.experiment.fit import check_workdir, fit
from iadjax.experiment.run import Run
from iadjax.parallel import distributed

__all__ = ["METRICS", "fit_sequence"]

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
"""The metrics with a matrix in `sequence.json`."""


class Step(NamedTuple):
    """One fit: what it is called, what it sees, and on which categories it is evaluated afterwards."""

    name: str
    categories: tuple[str, ...]
    protocol: str
    evaluated: tuple[str, ...]


def fit_sequence(config: Mapping[str, Any], workdir: str | Path, resume: bool = False) -> tuple[Run, dict[str, Any]]:
    """Runs the protocol "continual" or "transfer".

    - "continual": the categories of `data.category`, in their order, are fitted one at a time; after each, all so far are
      evaluated. T[l, j] is the metric of category j after step l.
    - "transfer": a fit on all normal images of the categories in `protocol.source`, then one on `protocol.num_shots` normal
      images of the categories of `data.category` (with `protocol.rotations`); both are evaluated on the latter.

    Args:
      config: a config whose `protocol.name` is one of them.
      workdir: gets `config.json`, `steps/NN_name/` (a run each), and `sequence.json`: the matrices of `METRICS`, for
        "continual" with average accuracy and both averages of forgetting. Of the last step also `metrics.json`, `scores.csv`,
        `report/`.
      resume: continue the sequence in `workdir`.

    Returns:
      The last run, with all evaluated categories as its data, and what `sequence.json` holds.

    Raises:
      UserError: bad input.
    """
    config = places.absolute(configs.resolve(config))
    workdir = files.place(workdir)
    if config["protocol"]["name"] not in SEQUENCES:
        raise UserError(f"the protocol {config['protocol']['name']!r} is one fit; {did_you_mean('continual', SEQUENCES)}")
    steps = _steps(config)
    check_workdir(workdir, config, resume)
    # one process writes after all have checked the workdir
    distributed.barrier("sequence")
    if distributed.is_main():
        files.write_json(workdir / "config.json", config)
    run, rows = None, []
    for number, step in enumerate(steps):
        progress.say(f"step {number + 1} of {len(steps)}: {step.name}")
        directory = workdir / "steps" / f"{number:02d}_{step.name.replace(',', '+')}"
        run = fit(_with(config, step.categories, step.protocol), directory, resume=resume and directory.exists(), start=run)
        seen = dataclasses.replace(run, config=_with(config, step.evaluated, "unsupervised"))
        last = number + 1 == len(steps)
        file = directory / "metrics.json"
        if file.is_file() and not last:
            rows.append(files.read_json(file, "remove it, and --resume evaluates this step again"))
            continue
        rows.append(evaluate(seen, output=workdir if last else None, speed=last))
        if distributed.is_main():
            files.write_json(file, rows[-1])
    found = {"protocol": config["protocol"]["name"], "steps": [step.name for step in steps], "metrics": {}}
    for key in METRICS:
        matrix = np.array([[_number(row, category, key) for category in steps[-1].evaluated] for row in rows])
        entry: dict[str, Any] = {"categories": list(steps[-1].evaluated), "matrix": matrix.tolist()}
        if config["protocol"]["name"] == "continual" and np.all(np.isfinite(matrix[np.tril_indices(len(matrix))])):
            lost = metrics.forgetting(matrix)
            entry["average_accuracy"] = metrics.average_accuracy(matrix)
            entry["forgetting"] = {**lost._asdict(), "per_task": lost.per_task.tolist()}
        found["metrics"][key] = entry
    if distributed.is_main():
        files.write_json(workdir / "sequence.json", found)
    return seen, found


def _number(row: dict[str, Any], category: str, key: str) -> float:
    value = row.get(category, {}).get(key)
    return float("nan") if value is None else value


def _steps(config: dict[str, Any]) -> list[Step]:
    target = _categories(config, config["data"]["category"])
    if config["protocol"]["name"] == "continual":
        if len(target) < 2:
            raise UserError(f"continual needs several categories, and data.category names one: {target[0]}")
        return [Step(name, (name,), "unsupervised", target[: i + 1]) for i, name in enumerate(target)]
    if not config["protocol"]["source"]:
        raise UserError("transfer needs --config.protocol.source=CATEGORIES, those to fit on before data.category")
    source = _categories(config, config["protocol"]["source"])
    both = set(source) & set(target)
    if both:
        raise UserError(f"{sorted(both)[0]} is both in protocol.source and in data.category; transfer goes to unseen ones")
    return [Step("source", source, "unsupervised", target), Step("target", target, "few_shot", target)]


def _categories(config: dict[str, Any], names: str) -> tuple[str, ...]:
    return data.load(**{**configs.source_options(config), "category": names}, seed=config["seed"]).categories


def _with(config: dict[str, Any], categories: tuple[str, ...], protocol: str) -> dict[str, Any]:
    section = {**config["protocol"], "name": protocol}
    return {**config, "data": {**config["data"], "category": ",".join(categories)}, "protocol": section}
