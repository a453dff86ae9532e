"""A run from its directory."""

import functools
import json
from pathlib import Path
from typing import Any

import jax

from iadjax import config as configs
from iadjax.detector import DataSpec, State
from iadjax.errors import UserError
from iadjax.experiment import checkpoint
from iadjax.experiment.run import Run
from iadjax.parallel import placement

__all__ = ["load", "nested_state", "read_config"]


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
    stored = checkpoint.read(path)
    model = configs.build_model(config)
    devices = placement.all_devices(config["parallel"])
    spec = configs.with_features(stored["spec"], model)
    if stored["position"].phase < len(model.detector.phases(spec)):
        raise UserError(f"the run in {workdir} has not finished fitting; continue it with scripts/train.py --resume")
    identity = {"config": configs.fit_keys(config), "weights": model.weights}
    place = functools.partial(placement.state_shardings, devices, model.detector)
    like = nested_state(model, spec, stored["position"].phase, stored["carried"])
    state = checkpoint.restore(path, like, identity, place)
    file = workdir / "threshold.json"
    threshold = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    frozen, ready = placement.replicate(devices, (model.frozen, model.ready))
    model = model._replace(frozen=frozen, ready=ready)
    return Run(config, workdir, model, state, spec, threshold, devices)


def read_config(workdir: Path) -> dict[str, Any]:
    """The resolved config that a workdir was made with."""
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir} holds no run (there is no config.json); give the --workdir of one")
    config = json.loads(file.read_text(encoding="utf-8"))
    configs.refuse_old_keys(config, f"the run in {workdir} is of an earlier version and has to be fitted again: its config")
    return config


def nested_state(model: configs.Model, spec: DataSpec, phase: int, carried: bool) -> State:
    """Shapes of the state that `init` makes, nested as the state is before the phase number `phase`."""
    # the spec is static: shapes follow from it
    state = jax.eval_shape(lambda key, frozen: model.detector.init(key, frozen, spec), jax.random.key(0), model.frozen)
    for done in model.detector.phases(spec)[:phase]:
        if done.finalized is not None and done.when != ("fresh" if carried else "carried"):
            state = done.finalized(state)
    return state
