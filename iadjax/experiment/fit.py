"""The driver: fits any detector, from its config to a directory with the run. It knows no detector by name."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from iadjax import config as configs
from iadjax import data, files, metrics, progress, report
from iadjax.data.images import to_float
from iadjax.detector import DataSpec, State
from iadjax.errors import UserError
from iadjax.experiment import checkpoint, places, record
from iadjax.experiment.checkpoint import Position
from iadjax.experiment.evaluate import check_maps
from iadjax.experiment.job import Job, fold
from iadjax.experiment.load import nested_state, read_config
from iadjax.experiment.loop import INIT, Stopped, run_phases
from iadjax.experiment.run import Run
from iadjax.parallel import distributed, placement
from iadjax.parallel.jit import jit_init

__all__ = ["Stopped", "check_workdir", "fit"]

# held-out images below which a line says how little a threshold is worth
_FEW = 20
# pixels of each held-out map that the range of colours is taken from
_PIXELS = 4096


def fit(config: Mapping[str, Any], workdir: str | Path, resume: bool = False, start: Run | None = None) -> Run:
    """Fits the detector of a config and writes the run to `workdir`.

    Args:
      config: a config as `get_config` returns it, or a resolved one.
      workdir: a directory without a run, or with the one to continue.
      resume: continue the run in `workdir`, also from the middle of an epoch; if there is none, begin it.
      start: a fitted run of the same detector; `Detector.warm_start` makes the first state from its state (continual learning).

    Returns:
      The fitted run.

    Raises:
      UserError: bad input; nothing is written before the config, the data and the weights have been checked.
      Stopped: SIGTERM or Ctrl-C came; a checkpoint was written.
    """
    config = places.absolute(configs.resolve(config))
    workdir = files.place(workdir)
    devices = placement.all_devices(config["parallel"])
    check_workdir(workdir, config, resume)
    clock = record.Clock()
    try:
        return _fit(config, workdir, devices, clock, start)
    except Stopped:
        # its seconds count when the run goes on
        record.update(workdir, clock)
        raise


def _fit(config: dict, workdir: Path, devices: placement.Devices, clock: record.Clock, start: Run | None) -> Run:
    """`fit` of a resolved config in a directory that has been checked."""
    with placement.use(devices), record.compilations(clock):
        with clock.stage("prepare"):
            # 1. quick checks: options, folders, the first image
            model = configs.outline_model(config)
            built = configs.build_data(config)
            spec = configs.spec_of(config, built, model)
            # errors of `init` (sizes, budgets) come before anything is fetched or written
            nested_state(model, spec, 0, False)
            _check_phases(model.detector, spec, built, config["data"]["batch_size"])
            _check_augment(model, spec, built)
            _check_outputs(config, built, model)
            hashes = record.data_hashes(built)
            _check_images(workdir, hashes)
            # 2. weights, which may be fetched
            model = configs.load_frozen(config, model)
            # in one call: most of their arrays are the same
            frozen, ready = placement.replicate(devices, (model.frozen, model.ready))
            model = model._replace(frozen=frozen, ready=ready)
        # one process writes to the workdir after all have checked it
        distributed.barrier("prepared")
        if distributed.is_main():
            files.write_json(workdir / "config.json", config)
            places.carry_weights(workdir, config)
            record.begin(workdir, config, model, built, hashes)
        with clock.stage("fit"):
            key = placement.replicate(devices, jax.random.key(config["seed"]))
            carried = start is not None and model.detector.warm_start is not None
            state = _fit_phases(Job(config, workdir, model, built, spec, devices, clock, key, carried), start)
        run = Run(config, workdir, model, state, spec, devices=devices)
        with clock.stage("threshold"):
            run = _fit_threshold(run, built.split.validation)
    record.update(workdir, clock)
    return run


def check_workdir(workdir: Path, config: dict, resume: bool) -> None:
    """A UserError where a run of this resolved config may not begin, or go on, in `workdir`; nothing is written."""
    file = workdir / "config.json"
    if file.is_file() and not resume:
        raise UserError(f"{workdir} holds another run; continue it with --resume, or give another --workdir")
    if workdir.is_dir() and not file.is_file() and any(workdir.iterdir()):
        raise UserError(f"{workdir} is not empty and holds no run; give a new directory with --workdir")
    if file.is_file():
        stored = configs.fit_keys(read_config(workdir))
        now = configs.fit_keys(config)
        differing = [f"{key} was {stored.get(key)!r}, now {now.get(key)!r}" for key in now if stored.get(key) != now[key]]
        if differing:
            raise UserError(f"{workdir} holds a run of another config: {'; '.join(differing[:4])}; give another --workdir")


def _check_images(workdir: Path, hashes: Mapping[str, str]) -> None:
    """The images are part of what a run is, wherever they lie."""
    file = workdir / "run.json"
    if not file.is_file():
        return
    stored = files.read_json(file, "give another --workdir").get("fingerprint_parts", {}).get("training_data")
    if stored not in (None, hashes["training_data"]):
        raise UserError(
            f"{workdir} was begun on other images (their hash was {stored[:12]}, now {hashes['training_data'][:12]}); give it "
            "those, or another --workdir"
        )


def _check_augment(model: configs.Model, spec: DataSpec, built: configs.Data) -> None:
    """Augments one image, so that what is wrong with it (a folder without textures) is said before the work begins."""
    augment = [phase.augment for phase in model.detector.phases(spec) if phase.augment is not None]
    if not augment:
        return
    first = data.in_tiles(built.dataset, model.transform, built.split.train[:1])[0]
    image = to_float(data.read_transformed(built.dataset, model.transform, first)[0])
    for each in augment:
        each(np.random.default_rng(0), image, lambda: image)


def _check_outputs(config: Mapping[str, Any], built: configs.Data, model: configs.Model) -> None:
    """What would fail after the fit alone: a rule for other scores or more images, maps that cannot be saved."""
    if config["threshold"]["name"] == "a_contrario" and not model.detector.false_alarms:
        raise UserError(
            "the threshold rule a_contrario is for scores that are numbers of false alarms, such as those of uflow with "
            "--config.detector.scores=nfa; take another --config.threshold.name"
        )
    if built.split.validation:
        metrics.check_threshold(number=len(built.split.validation), **config["threshold"])
    check_maps(config)


def _check_phases(detector, spec, built, batch_size: int) -> None:
    phases, split = detector.phases(spec), built.split
    labelled = any(item.label for item in split.train)
    data.check_inputs(built.dataset, detector.inputs)
    if phases and not split.train:
        raise UserError(
            "this detector is fitted, and zero_shot has nothing to fit it on: set --config.protocol.test_batch=true to fit it "
            "on the unlabelled test images, or take a detector without phases"
        )
    for phase in phases:
        if phase.anomaly_fraction and (not labelled or batch_size < 2):
            raise UserError(
                "this detector learns from labelled anomalies: set --config.protocol.name=supervised, data.batch_size above 1"
            )
        if phase.split == "validation" and not spec.num_validation:
            raise UserError(
                f"the phase {phase.name!r} needs held-out normal images; set --config.threshold.holdout above 0, like 0.1"
            )


def _fit_phases(job: Job, start: Run | None) -> State:
    """The state after all phases: from the newest checkpoint, from an earlier run, or from `init`."""
    detector, path = job.model.detector, checkpoint.latest(job.workdir / "checkpoints")
    if path is not None:
        stored = checkpoint.read(path)
        job = dataclasses.replace(job, carried=stored["carried"])
        like = nested_state(job.model, job.spec, stored["position"].phase, job.carried)
        place = functools.partial(placement.state_shardings, job.devices, detector)
        state = checkpoint.restore(path, stored, like, job.identity, place)
        progress.say(f"continuing from step {stored['position'].step} ({path.name})")
        return run_phases(job, state, stored["position"])
    state = jit_init(job.devices, detector, job.spec)(fold(job.key, INIT), job.model.frozen)
    if job.carried:
        state = job.place(detector.warm_start(state, start.state))
    return run_phases(job, state, Position())


def _fit_threshold(run: Run, items) -> Run:
    """The decision rule, from held-out normal images alone; without them none but "a_contrario"."""
    file, rule = run.workdir / "threshold.json", run.config["threshold"]
    theory = rule["name"] == "a_contrario"
    if not items and not theory:
        if distributed.is_main():
            file.unlink(missing_ok=True)
        return run
    options = {key: rule[key] for key in metrics.threshold_options(rule["name"])}
    scores, largest, pixels = [], [], []
    for _, score, anomaly_map in run.predict_items(items, "threshold") if items else ():
        scores.append(score)
        if anomaly_map is not None:
            largest.append(anomaly_map.max())
            pixels.append(anomaly_map.ravel()[:: max(1, anomaly_map.size // _PIXELS)])
    scores = np.array(scores)
    if len(scores) < _FEW and not theory:
        progress.say(
            f"the threshold rests on {len(scores)} held-out normal images: a new normal image scores higher than all of them "
            f"with a probability of {1 / (len(scores) + 1):.0%}; hold out more with --config.threshold.holdout"
        )
    value = float(metrics.fit_threshold(rule["name"], scores, **options))
    threshold = {
        "name": rule["name"],
        "holdout": rule["holdout"],
        **options,
        "value": value,
        "images": len(scores),
    }
    if items:
        statistics = {"mean": scores.mean(), "std": scores.std(), "min": scores.min(), "max": scores.max()}
        threshold["normal_scores"] = {key: float(each) for key, each in statistics.items()}
        threshold |= _of_maps(rule["name"], options, np.array(largest), pixels)
    else:
        threshold["pixel_value"] = value
    if distributed.is_main():
        files.write_json(file, threshold)
    return dataclasses.replace(run, threshold=threshold)


def _of_maps(name: str, options: Mapping[str, float], largest: np.ndarray, pixels: list[np.ndarray]) -> dict[str, Any]:
    """What `threshold.json` says of maps: `pixel_value`, fitted by the rule to the largest value of each held-out normal map,
    and `map_range`, the ends of the colours in pictures; nothing where the detector does not localise."""
    if not pixels:
        return {}
    try:
        found = {"pixel_value": float(metrics.fit_threshold(name, largest, **options))}
    except UserError as error:
        progress.say(f"no pixel threshold, so no masks and contours: {error}")
        found = {}
    limit = found.get("pixel_value", float(largest.max()))
    return found | {"map_range": list(report.normal_range(np.concatenate(pixels), limit))}
