"""The driver: runs the phases of any detector, with checkpoints, resume, progress and logs. It knows no detector by name."""

import contextlib
import dataclasses
import functools
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from iadjax import config as configs
from iadjax import data, files, metrics, progress
from iadjax.data.images import unit_range
from iadjax.detector import DataSpec, Phase, State
from iadjax.errors import UserError
from iadjax.experiment import checkpoint, record
from iadjax.experiment.checkpoint import Position
from iadjax.experiment.load import empty_state, read_config
from iadjax.experiment.log import Log
from iadjax.experiment.run import Run
from iadjax.parallel import distributed, placement
from iadjax.parallel.jit import jit_init, jit_update

__all__ = ["Stopped", "check_workdir", "fit"]

# salts that keep the streams of random numbers apart
_INIT, _UPDATE, _FINALIZE, _BETWEEN = 0, 1, 2, 3
# steps after which several processes ask each other whether a signal came
_ASK_EVERY = 8


class Stopped(Exception):
    """A signal ended the run after a checkpoint was written."""


def fit(config: Mapping[str, Any], workdir: str | Path, resume: bool = False, start: Run | None = None) -> Run:
    """Fits the detector of a config and writes the run to `workdir`.

    Args:
      config: a config as `get_config` returns it, or a resolved one.
      workdir: a directory without a run, or with the one to continue.
      resume: continue the run in `workdir` (from the middle of an epoch if need be); without one, begin it.
      start: a fitted run of the same detector whose state goes on here, as `Detector.carry` says (continual learning).

    Returns:
      The fitted run.

    Raises:
      UserError: bad input; nothing is written before the config, the data and the weights have been checked.
      Stopped: SIGTERM or Ctrl-C came; a checkpoint was written.
    """
    config = configs.resolve(config)
    workdir = Path(workdir)
    devices = placement.all_devices(config["parallel"])
    check_workdir(workdir, config, resume)
    clock = record.Clock()
    with placement.use(devices), record.compilations(clock):
        with clock.stage("prepare"):
            # first what costs nothing to look at: weights may have to be fetched
            built = configs.build_data(config)
            model = configs.build_model(config)
            spec = configs.spec_of(config, built, model.transform)
            _check_phases(model.detector.phases, spec, built.split, config["data"]["batch_size"])
            # what `init` refuses (sizes, budgets) is said before anything is written
            like = empty_state(model, spec)
            # together: most of their arrays are the same
            frozen, ready = placement.replicate(devices, (model.frozen, model.ready))
            model = model._replace(frozen=frozen, ready=ready)
        # every process has looked at the workdir before one writes to it
        distributed.barrier("prepared")
        if distributed.is_main():
            files.write_json(workdir / "config.json", config)
            record.begin(workdir, config, model, built)
        with clock.stage("fit"):
            state = _fit_phases(config, workdir, model, built, spec, like, devices, clock, start)
        run = Run(config, workdir, model.detector, state, frozen, ready, model.transform, model.weights, devices=devices)
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


def _check_phases(phases, spec: DataSpec, split: data.Split, batch_size: int) -> None:
    labelled = any(item.label for item in split.train)
    if phases and not split.train:
        raise UserError(
            "this detector is fitted, and zero_shot has nothing to fit it on: set --config.protocol.test_batch=true to fit it "
            "on the unlabelled test images, or take a detector without phases"
        )
    for phase in phases:
        if phase.anomaly_share and (not labelled or batch_size < 2):
            raise UserError(
                "this detector learns from labelled anomalies: set --config.protocol.name=supervised, data.batch_size above 1"
            )
        if phase.split == "validation" and not spec.num_validation:
            raise UserError(
                f"the phase {phase.name!r} needs held-out normal images; set --config.threshold.holdout above 0, like 0.1"
            )


def _fit_phases(config, workdir, model, built, spec, like: State, devices: placement.Devices, clock, start) -> State:
    detector, directory = model.detector, workdir / "checkpoints"
    phases = detector.phases
    key = placement.replicate(devices, jax.random.key(config["seed"]))
    identity = {"config": configs.fit_keys(config), "weights": model.weights}
    path = checkpoint.latest(directory)
    if path is None:
        position = Position()
        state = jit_init(devices, detector, spec)(jax.random.fold_in(key, _INIT), model.frozen)
        if start is not None and detector.carry is not None:
            state = placement.place(devices, detector, detector.carry(state, start.state))
    else:
        position = checkpoint.read(path)["position"]
        place = functools.partial(placement.state_shardings, devices, detector)
        state = checkpoint.restore(path, like, identity, place)
        progress.say(f"continuing from step {position.step} ({path.name})")

    def save(state: State, position: Position) -> None:
        checkpoint.save(directory, state, position, identity, spec)

    run_phase = functools.partial(_run_phase, config, model, built, devices, clock)
    with _signals() as stop, Log(workdir, position.step, distributed.is_main()) as log:
        for index in range(position.phase, len(phases)):
            if index > position.phase:
                position = Position(index, 0, 0, position.step)
            state, position = run_phase(index, key, state, position, save, stop, log)
            state = placement.place(devices, detector, state)
            state = phases[index].finalize(_fold(key, _FINALIZE, index), state, model.frozen)
            state = placement.place(devices, detector, state)
            position = Position(index + 1, 0, 0, position.step)
            save(state, position)
    if not phases and path is None:
        save(state, position)
    return state


def _run_phase(config, model, built, devices, clock, index, key, state, position, save, stop, log) -> tuple[State, Position]:
    """All updates of one phase, from `position` on."""
    phase = model.detector.phases[index]
    update = jit_update(devices, model.detector, _on_raw_images(phase), state)
    items = getattr(built.split, phase.split)
    if not phase.anomaly_share:
        items = [item for item in items if not item.label]
    items = data.in_tiles(built.dataset, model.transform, items)
    size = config["data"]["batch_size"]
    per_epoch = data.num_batches(items, size, phase.anomaly_share)
    updates = phase.steps or phase.epochs * per_epoch
    epochs = -(-updates // per_epoch)
    start, step = position.batch, position.step
    with progress.track(phase.name, updates, "step") as report:
        for epoch in range(position.epoch, epochs):
            loader = data.batches(
                built.dataset,
                items,
                model.transform,
                size,
                shuffle=(config["seed"], index, epoch),
                start=start,
                workers=config["data"]["workers"],
                process=distributed.process(),
                multiple=devices.count,
                raw=True,
                augment=phase.augment,
                anomaly_share=phase.anomaly_share,
            )
            for number, batch in enumerate(clock.waiting(loader), start=start + 1):
                state, info = update(_fold(key, _UPDATE, step), state, model.ready, placement.put_batch(devices, batch))
                if phase.between is not None:
                    state = phase.between(
                        _fold(key, _BETWEEN, index), placement.place(devices, model.detector, state), model.frozen
                    )
                    state = placement.place(devices, model.detector, state)
                clock.asked = info
                step += 1
                log.write(step, phase.name, epoch, info)
                made = epoch * per_epoch + number
                report(made, updates)
                if made == updates:
                    done = Position(index, epochs, 0, step)
                elif number == per_epoch:
                    done = Position(index, epoch + 1, 0, step)
                else:
                    done = Position(index, epoch, number, step)
                stopping = _stopping(stop, step)
                if stopping or step % config["checkpoint_every"] == 0:
                    log.flush()
                    save(state, done)
                if stopping:
                    raise Stopped(f"stopped after step {step}; a checkpoint was written, continue with --resume")
                if made == updates:
                    break
            start = 0
    return state, Position(index, epochs, 0, step)


def _on_raw_images(phase: Phase) -> Callable:
    """The phase's update on batches whose images may be uint8."""

    def update(key, state, frozen, batch):
        state, info = phase.update(key, state, frozen, batch._replace(image=unit_range(batch.image)))
        return placement.strong(state), info

    # its name in profiles and in `run.json`
    update.__name__ = "update_" + re.sub(r"\W+", "_", phase.name)
    return update


def _stopping(stop: threading.Event, step: int) -> bool:
    """Whether a signal came; several processes ask each other now and then, because asking waits for the devices."""
    if distributed.process()[1] == 1:
        return stop.is_set()
    return step % _ASK_EVERY == 0 and distributed.agree(stop.is_set())


def _fold(key: jax.Array, *words: int) -> jax.Array:
    for word in words:
        key = jax.random.fold_in(key, word)
    return key


@contextlib.contextmanager
def _signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or Ctrl-C sets; a second one ends the program at once."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number, frame):
        del frame
        if stop.is_set():
            raise KeyboardInterrupt
        progress.say(f"got {signal.Signals(number).name}: writing a checkpoint after this step (once more to end at once)")
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fit_threshold(run: Run, items) -> Run:
    """The decision rule, from held-out normal images alone; none without them."""
    file = run.workdir / "threshold.json"
    if not items:
        if distributed.is_main():
            file.unlink(missing_ok=True)
        return run
    rule = run.config["threshold"]
    options = {key: rule[key] for key in metrics.threshold_options(rule["name"])}
    scores = np.array([score for _, score, _ in run.predict_items(items, "threshold")])
    value = float(metrics.fit_threshold(rule["name"], scores, **options))
    statistics = {"mean": scores.mean(), "std": scores.std(), "min": scores.min(), "max": scores.max()}
    threshold = {
        "name": rule["name"],
        "holdout": rule["holdout"],
        **options,
        "value": value,
        "images": len(scores),
        "normal_scores": {key: float(each) for key, each in statistics.items()},
    }
    if distributed.is_main():
        files.write_json(file, threshold)
    return dataclasses.replace(run, threshold=threshold)
