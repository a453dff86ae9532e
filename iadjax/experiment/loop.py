"""The loop: all updates of all phases, from any position on, with checkpoints in between."""

import contextlib
import re
import signal
import threading
from collections.abc import Callable, Iterator

from iadjax import data, progress
from iadjax.data.images import unit_range
from iadjax.detector import Phase, State
from iadjax.experiment import checkpoint
from iadjax.experiment.checkpoint import Position
from iadjax.experiment.features import FeatureCache
from iadjax.experiment.job import Job, fold
from iadjax.experiment.log import Log
from iadjax.experiment.pipeline import batches_of, cache_of, items_of, left_out, num_updates
from iadjax.experiment.plateau import is_flat, looks, window_of
from iadjax.parallel import distributed, placement
from iadjax.parallel.jit import jit_update

__all__ = ["INIT", "Stopped", "run_phases", "signals"]

# salts that keep the streams of random numbers apart
INIT, _UPDATE, _FINALIZE, _BETWEEN = 0, 1, 2, 3
# steps after which several processes ask each other whether a signal came
_ASK_EVERY = 8


class Stopped(Exception):
    """A signal ended the run after a checkpoint was written."""


def run_phases(job: Job, state: State, position: Position) -> State:
    """The state after all phases that are left from `position` on.

    Raises:
      Stopped: SIGTERM or Ctrl-C came; a checkpoint was written.
    """
    caches: dict[str, FeatureCache | None] = {}
    with signals() as stop, Log(job.workdir, position.step, distributed.is_main()) as log:
        for index in range(position.phase, len(job.phases)):
            if index > position.phase:
                position = Position(index, 0, 0, position.step)
            phase = job.phases[index]
            if left_out(job, phase):
                continue
            state, position = _run_phase(job, index, state, position, caches, stop, log)
            state = job.place(state)
            state = phase.finalize(fold(job.key, _FINALIZE, index), state, job.model.frozen)
            state = job.place(state)
            job.save(state, Position(index + 1, 0, 0, position.step))
        position = Position(len(job.phases), 0, 0, position.step)
        last = checkpoint.latest(job.workdir / "checkpoints")
        if last is None or checkpoint.read(last)["position"].phase < position.phase:
            # there is no phase, or the last ones were skipped
            job.save(state, position)
    return state


def _run_phase(job: Job, index: int, state: State, position: Position, caches, stop, log) -> tuple[State, Position]:
    """All updates of one phase, from `position` on."""
    # 1. the images that the phase sees, and the number of updates
    phase, config, devices = job.phases[index], job.config, job.devices
    items = data.in_tiles(job.built.dataset, job.model.transform, items_of(job.built.split, phase))
    updates, per_epoch = num_updates(phase, items, config["data"]["batch_size"])
    epochs = -(-updates // per_epoch)
    # 2. features that are computed once
    cache = cache_of(job, phase, items, caches)
    # 3. the update, compiled
    update = jit_update(devices, job.model.detector, _on_raw_images(phase), state)
    start, step = position.batch, position.step
    with progress.track(phase.name, updates, "step") as report:
        for epoch in range(position.epoch, epochs):
            # at the beginning of a pass, so that a run that goes on from here decides the same
            if start == 0 and _flat(job, phase, epoch * per_epoch, per_epoch, updates, log):
                break
            for number, batch in enumerate(
                job.clock.waiting(batches_of(job, index, items, epoch, start, cache)), start=start + 1
            ):
                # 4. one step
                state, info = update(fold(job.key, _UPDATE, step), state, job.model.ready, batch)
                # 5. work outside jit
                if phase.between is not None:
                    state = phase.between(fold(job.key, _BETWEEN, index), job.place(state), job.model.frozen)
                    state = job.place(state)
                # 6. log and progress
                job.clock.asked = info
                step += 1
                log.write(step, phase.name, epoch, info)
                made = epoch * per_epoch + number
                report(made, updates)
                # 7. a checkpoint now and then, and one before stopping
                done = _position(index, epoch, number, step, made, updates, per_epoch, epochs)
                stopping = _stopping(stop, step)
                if stopping or step % config["checkpoint_every"] == 0:
                    log.flush()
                    job.save(state, done)
                if stopping:
                    raise Stopped(f"stopped after step {step}; a checkpoint was written, continue with --resume")
                if made == updates:
                    break
            start = 0
    return state, Position(index, epochs, 0, step)


def _flat(job: Job, phase: Phase, steps: int, per_epoch: int, updates: int, log: Log) -> bool:
    """Whether the phase ends after `steps` of its `updates`, because its loss has been flat for `plateau` of them."""
    fraction = job.config["plateau"]
    window = window_of(fraction, updates)
    if not fraction or steps == 0 or not looks(steps - per_epoch, steps, window):
        return False
    flat = distributed.agree(is_flat(log.losses(phase.name), window))
    if flat:
        progress.say(f"{phase.name}: the loss has been flat over {window} steps, so it ends here, after {steps} of {updates}")
    return flat


def _position(index, epoch, number, step, made, updates, per_epoch, epochs) -> Position:
    if made == updates:
        return Position(index, epochs, 0, step)
    return Position(index, epoch + 1, 0, step) if number == per_epoch else Position(index, epoch, number, step)


def _on_raw_images(phase: Phase) -> Callable:
    """The phase's update on batches whose images may be uint8."""

    def update(key, state, frozen, batch):
        image = None if batch.image is None else unit_range(batch.image)
        state, info = phase.update(key, state, frozen, batch._replace(image=image))
        return placement.strong(state), info

    # its name in profiles and in `run.json`
    update.__name__ = "update_" + re.sub(r"\W+", "_", phase.name)
    return update


def _stopping(stop: threading.Event, step: int) -> bool:
    """Whether a signal came; several processes ask each other now and then, because asking waits for the devices."""
    if distributed.process()[1] == 1:
        return stop.is_set()
    return step % _ASK_EVERY == 0 and distributed.agree(stop.is_set())


@contextlib.contextmanager
def signals() -> Iterator[threading.Event]:
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
