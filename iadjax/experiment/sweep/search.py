"""A search for options by Optuna: its study, its trials as tasks of the workers, and what it chose.

Trial N of a config is drawn by TPE from the finished trials before it, with a seed of its own. So one worker makes the same
trials again, also when it was stopped in between. Several workers share the study through its storage.
"""

import importlib.util
import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from iadjax import config as configs
from iadjax.errors import UserError
from iadjax.experiment.sweep.objective import METRICS, WAYS
from iadjax.experiment.sweep.plan import Plan
from iadjax.experiment.sweep.space import check_space
from iadjax.experiment.sweep.store import once
from iadjax.experiment.sweep.worker import Task

__all__ = ["check", "choose", "make_search", "open_study", "options_of", "tasks_of"]

HOLDOUT = 0.2
"""Fraction of the normal training images that trials hold out where the config holds out none."""


def make_search(space: dict[str, Any], trials: int, metric: str, storage: str, on_test: bool, seed: int = 0) -> dict[str, Any]:
    """What `sweep.json` says of a search.

    Args:
      space: of `space.read_space`.
      trials: how many, of each config.
      metric: what is maximised: one of `objective.METRICS`.
      storage: "journal", "sqlite", or an address that Optuna knows, like "sqlite:////shared/study.db".
      on_test: whether the objective is measured on the test set.
      seed: of the trials and of the synthetic anomalies.

    Raises:
      UserError: Optuna is missing, or a value is out of range.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UserError('--search needs Optuna, which is not installed: python -m pip install "iadjax[search]"')
    if trials < 1:
        raise UserError(f"--trials must be at least 1, got {trials}")
    if metric not in METRICS:
        raise UserError(f"--search_metric must be one of {', '.join(METRICS)}, got {metric!r}")
    if storage not in ("journal", "sqlite") and "://" not in storage:
        raise UserError(f"--search_storage must be journal, sqlite or an address like sqlite:////DIR/FILE.db, got {storage!r}")
    return {"space": space, "trials": trials, "metric": metric, "storage": storage, "on_test": on_test, "seed": seed}


def check(directory: Path, plan: Plan) -> None:
    """Looks at everything that a search needs before `sweep.json` is written.

    Raises:
      UserError: the space does not fit a config, or the database holds a study of another space.
    """
    for each in plan.configs.values():
        try:
            check_space(plan.search["space"], each["config"])
        except UserError as error:
            raise UserError(f"--config={each['name']}: {error}") from error
    if "://" in plan.search["storage"]:
        for label in plan.configs:
            open_study(directory, plan, label)


def tasks_of(directory: Path, plan: Plan) -> list[Task]:
    """The trials of all configs, as tasks; the folder of a mark is the label, its name the number of the trial."""
    return [
        Task(directory / "jobs" / "search" / label / str(number), f"{label} trial {number}")
        for number in range(plan.search["trials"])
        for label in plan.configs
    ]


def open_study(directory: Path, plan: Plan, label: str) -> Any:
    """The Optuna study of a config.

    Raises:
      UserError: the storage cannot be opened, or its study is of another space or objective.
    """
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    how = plan.search
    try:
        study = optuna.create_study(
            study_name=label, storage=_storage(directory, how["storage"]), direction="maximize", load_if_exists=True
        )
        wanted = _identity(plan, label)
        stored = study.user_attrs.get("iadjax")
        if stored is None and not study.get_trials(deepcopy=False):
            study.set_user_attr("iadjax", wanted)
            stored = wanted
    except UserError:
        raise
    except Exception as error:  # every kind of storage has errors of its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise UserError(
            f"cannot open the storage {how['storage']} of the search ({reason}); give another --search_storage"
        ) from error
    if stored != wanted:
        what = "space" if not stored or stored.get("space") != wanted["space"] else "objective or config"
        raise UserError(
            f"the storage {how['storage']} holds a study {label!r} of another {what}; give another --search_storage, or search "
            "in the space it was begun with"
        )
    return study


def _identity(plan: Plan, label: str) -> dict[str, Any]:
    """What a study belongs to, as JSON."""
    how, each = plan.search, plan.configs[label]
    rest = {key: how[key] for key in ("metric", "on_test", "seed")}
    fitted = configs.fingerprint(configs.fit_keys(each["config"]))
    made = {"space": how["space"], **rest, "config": fitted, "categories": each["categories"], "seed_of_runs": plan.seeds[0]}
    return json.loads(json.dumps(made))


def _storage(directory: Path, storage: str) -> Any:
    import optuna
    import sqlalchemy

    place = directory / "search"
    place.mkdir(parents=True, exist_ok=True)
    if storage == "journal":
        # its lock is a link, which also works on disks of a network
        backend = optuna.storages.journal.JournalFileBackend(str(place / "journal.log"))
        return optuna.storages.JournalStorage(backend)
    address = f"sqlite:///{place.resolve() / 'study.db'}" if storage == "sqlite" else storage
    # a connection is closed after each use: nothing would close those of a pool
    return optuna.storages.RDBStorage(address, engine_kwargs={"poolclass": sqlalchemy.pool.NullPool})


def options_of(directory: Path, plan: Plan, label: str, number: int) -> tuple[Any, Any, dict[str, Any]]:
    """The study, the trial and the options of trial `number` of a config; those that it had, if it was stopped."""
    import optuna

    study = open_study(directory, plan, label)
    for trial in study.get_trials(deepcopy=False):
        if trial.user_attrs.get("number") == number and trial.state in (
            optuna.trial.TrialState.RUNNING,
            optuna.trial.TrialState.COMPLETE,
        ):
            return study, trial, json.loads(trial.user_attrs["options"])
    # so a trial depends on its number and on the finished trials alone
    study.sampler = optuna.samplers.TPESampler(seed=1_000_003 * plan.search["seed"] + number)
    trial = study.ask()
    options = {key: _suggest(trial, key, value) for key, value in plan.search["space"].items()}
    trial.set_user_attr("options", json.dumps(options))
    trial.set_user_attr("number", number)
    return study, trial, options


def _suggest(trial: Any, key: str, value: Mapping[str, Any]) -> Any:
    if "choices" in value:
        # a storage keeps numbers and text alone, so choices are kept by their JSON
        return json.loads(trial.suggest_categorical(key, [json.dumps(each) for each in value["choices"]]))
    low, high, log = value["low"], value["high"], bool(value.get("log"))
    if type(low) is int and type(high) is int:
        return trial.suggest_int(key, low, high, step=value.get("step", 1), log=log)
    return trial.suggest_float(key, low, high, step=value.get("step"), log=log)


def choose(directory: Path, plan: Plan, say: Callable[[str], None]) -> None:
    """Writes the best options of every config to `search/LABEL/best.json`, once; all workers then take these."""
    import optuna

    for label in plan.configs:
        study = open_study(directory, plan, label)
        done = [trial for trial in study.get_trials(deepcopy=False) if trial.state == optuna.trial.TrialState.COMPLETE]
        known = [trial for trial in done if trial.value is not None and math.isfinite(trial.value)]
        if not known:
            raise UserError(f"no trial of {label} has a value; look at {directory / 'jobs' / 'search' / label}")
        found = max(known, key=lambda trial: (trial.value, -trial.number))
        options = json.loads(found.user_attrs["options"])
        how = f"options by a search, TPE with {len(done)} trials: {_text(options)}"
        about = f"{how}; objective: {_objective(plan)}, {found.value:.4f}"
        if once(directory / "search" / label / "best.json", {"options": options, "value": found.value, "about": about}):
            say(f"sweep: {label}: {about}")


def _objective(plan: Plan) -> str:
    how = plan.search
    if how["on_test"]:
        return f"{how['metric']} ON THE TEST SET (--search_on_test)"
    return f"{how['metric']} on held-out normal images and synthetic anomalies ({WAYS})"


def _text(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in options.items())
