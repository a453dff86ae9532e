"""A run from its directory."""

import functools
import math
from pathlib import Path
from typing import Any

import jax

from iadjax import config as configs
from iadjax import files
from iadjax.detector import DataSpec, State
from iadjax.errors import UserError
from iadjax.experiment import checkpoint, places
from iadjax.experiment.run import Run
from iadjax.parallel import placement

__all__ = ["load", "nested_state", "read_config"]


def load(workdir: str | Path, data_root: str | None = None, weights: str | None = None, max_pixels: int | None = None) -> Run:
    """The fitted detector in a workdir.

    Args:
      workdir: of a run.
      data_root: where the images are now, if not where they were when the run was fitted; predicting needs none.
      weights: where the backbone's weights are now; the run has them with it if they were a file.
      max_pixels: another `data.max_pixels`, the limit of an image's size.

    Raises:
      UserError: there is no run, it has not finished fitting, or a file of it is damaged.
    """
    workdir = files.place(workdir)
    config = places.moved(read_config(workdir), data_root, max_pixels)
    carried = places.carried_weights(workdir, config)
    if weights is not None:
        if "backbone" not in config:
            raise UserError(f"{config['detector']['name']} has no backbone, so it takes no weights")
        carried["backbone"] = weights
    path = checkpoint.latest(workdir / "checkpoints")
    if path is None:
        raise UserError(f"{workdir} holds a run without a checkpoint; fit it with scripts/train.py --resume")
    stored = checkpoint.read(path)
    model = configs.build_model(config, carried)
    devices = placement.all_devices(config["parallel"])
    spec = configs.with_features(stored["spec"], model)
    if stored["position"].phase < len(model.detector.phases(spec)):
        raise UserError(f"the run in {workdir} has not finished fitting; continue it with scripts/train.py --resume")
    # a key that came after the run has its default, which is what the run did
    known = {key: value for key, value in configs.fit_keys(config).items() if key in stored["config"]}
    identity = {"config": known, "weights": model.weights}
    place = functools.partial(placement.state_shardings, devices, model.detector)
    like = nested_state(model, spec, stored["position"].phase, stored["carried"])
    state = checkpoint.restore(path, stored, like, identity, place)
    file = workdir / "threshold.json"
    threshold = _read_threshold(file) if file.is_file() else None
    frozen, ready = placement.replicate(devices, (model.frozen, model.ready))
    model = model._replace(frozen=frozen, ready=ready)
    return Run(config, workdir, model, state, spec, threshold, devices)


def read_config(workdir: Path) -> dict[str, Any]:
    """The resolved config that a workdir was made with."""
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir} holds no run (there is no config.json); give the --workdir of one")
    config = files.read_json(file, "give the --workdir of another run, or fit this one again")
    configs.refuse_old_keys(config, f"the run in {workdir} is of an earlier version and has to be fitted again: its config")
    try:
        return configs.resolve(config)
    except UserError as error:
        raise UserError(f"{file} is no config of this version ({error}); fit the run again") from error


def _read_threshold(file: Path) -> dict[str, Any]:
    advice = "fit it again with scripts/train.py --resume"
    threshold = files.read_json(file, advice)
    value = threshold.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f"{file} holds no finite threshold but {value!r}; {advice}")
    return threshold


def nested_state(model: configs.Model, spec: DataSpec, phase: int, carried: bool) -> State:
    """Shapes of the state that `init` makes, nested as the state is before the phase number `phase`."""
    # the spec is static: shapes follow from it
    state = jax.eval_shape(lambda key, frozen: model.detector.init(key, frozen, spec), jax.random.key(0), model.frozen)
    for done in model.detector.phases(spec)[:phase]:
        if done.finalized is not None and done.when != ("fresh" if carried else "carried"):
            state = done.finalized(state)
    return state
