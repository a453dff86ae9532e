"""The run of a directory, put together again."""

import functools
import json
from pathlib import Path
from typing import Any

import jax

from iadjax import config as configs
from iadjax.detector import State
from iadjax.errors import UserError
from iadjax.experiment import checkpoint
from iadjax.experiment.run import Run
from iadjax.parallel import placement

__all__ = ["empty_state", "load", "read_config"]


def load(workdir: str | Path) -> Run:
    """The fitted detector in a workdir.

    Raises:
      UserError: there is no run, or it has not finished fitting.
    """
    workdir = Path(workdir)
    config = read_config(workdir)
    path = checkpoint.latest(workdir / "checkpoints")
    if path is None:
        raise UserError(f"{workdir} holds a run without a checkpoint; fit it with scripts/train.py --resume")
    model = configs.build_model(config)
    devices = placement.all_devices(config["parallel"])
    stored = checkpoint.read(path)
    if stored["position"].phase < len(model.detector.phases):
        raise UserError(f"the run in {workdir} has not finished fitting; continue it with scripts/train.py --resume")
    identity = {"config": configs.fit_keys(config), "weights": model.weights}
    place = functools.partial(placement.state_shardings, devices, model.detector)
    state = checkpoint.restore(path, empty_state(model, stored["spec"]), identity, place)
    file = workdir / "threshold.json"
    threshold = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    frozen, ready = placement.replicate(devices, (model.frozen, model.ready))
    return Run(config, workdir, model.detector, state, frozen, ready, model.transform, model.weights, threshold, devices)


def read_config(workdir: Path) -> dict[str, Any]:
    """The resolved config that a workdir was made with."""
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir} holds no run (there is no config.json); give the --workdir of one")
    config = json.loads(file.read_text(encoding="utf-8"))
    configs.refuse_old_keys(config, f"the run in {workdir} is of an earlier version and has to be fitted again: its config")
    return config


def empty_state(model: configs.Model, spec) -> State:
    """Shapes and nesting of the state that `init` would make."""
    # the spec is static: shapes follow from it
    return jax.eval_shape(lambda key, frozen: model.detector.init(key, frozen, spec), jax.random.key(0), model.frozen)
