"""The loop: all updates of all phases, from any position on, with checkpoints in between."""

import contextlib
import dataclasses
import functools
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from iadjax import config as configs
from iadjax import data, progress
from iadjax.data import Item
from iadjax.data.images import unit_range
from iadjax.detector import Batch, DataSpec, Phase, State
from iadjax.experiment import checkpoint, record
from iadjax.experiment.checkpoint import Position
from iadjax.experiment.features import FeatureCache, fill_cache, why_not
from iadjax.experiment.log import Log
from iadjax.parallel import distributed, placement
from iadjax.parallel.jit import jit_embed, jit_update

__all__ = ["INIT", "Job", "Stopped", "fold", "num_updates", "run_phases", "splits"]

# salts that keep the streams of random numbers apart
INIT, _UPDATE, _FINALIZE, _BETWEEN = 0, 1, 2, 3
# steps after which several processes ask each other whether a signal came
_ASK_EVERY = 8


class Stopped(Exception):
    """A signal ended the run after a checkpoint was written."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that one fit needs; nothing in it changes.

    Attributes:
      config: the resolved config.
      workdir: where the run lives.
      model, built, spec: what is fitted on what.
      devices: what computes.
      clock: counts seconds.
      key: the run's key.
      carried: whether the fit goes on from an earlier state.
    """

    config: dict[str, Any]
    workdir: Path
    model: configs.Model
    built: configs.Data
    spec: DataSpec
    devices: placement.Devices
    clock: record.Clock
    key: jax.Array
    carried: bool

    @functools.cached_property
    def phases(self) -> tuple[Phase, ...]:
        """The detector's phases for this data."""
        return self.model.detector.phases(self.spec)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to."""
        return {"config": configs.fit_keys(self.config), "weights": self.model.weights, "carried": self.carried}

    @functools.cached_property
    def embed(self) -> Callable | None:
        """`Detector.embed`, compiled once for all phases and for the feature cache."""
        if self.model.detector.embed is None:
            return None

        def embed(frozen, image):
            return self.model.detector.embed(frozen, unit_range(image))

        compiled = jit_embed(self.devices, embed)
        return lambda image: compiled(self.model.ready, image)

    def save(self, state: State, position: Position) -> None:
        """Writes a checkpoint."""
        checkpoint.save(self.workdir / "checkpoints", state, position, self.identity, self.spec)

    def place(self, state: State) -> State:
        """The state where its arrays belong."""
        return placement.place(self.devices, self.model.detector, state)


def fold(key: jax.Array, *words: int) -> jax.Array:
    """The key of these words, different from that of any others."""
    for word in words:
        key = jax.random.fold_in(key, word)
    return key


def splits(split: data.Split, phase: Phase) -> Sequence[Item]:
    """The images that a phase sees: those of its split, anomalies only where it asks for them."""
    items = getattr(split, phase.split)
    return items if phase.anomaly_fraction else [item for item in items if not item.label]


def num_updates(phase: Phase, items: Sequence[Item], batch_size: int) -> tuple[int, int]:
    """(updates of a phase, those of one pass over its items)."""
    per_epoch = data.num_batches(items, batch_size, phase.anomaly_fraction, phase.group)
    return phase.steps or phase.epochs * per_epoch, per_epoch


def run_phases(job: Job, state: State, position: Position) -> State:
    """The state after all phases that are left from `position` on.

    Raises:
      Stopped: SIGTERM or Ctrl-C came; a checkpoint was written.
    """
    caches: dict[str, FeatureCache | None] = {}
    with _signals() as stop, Log(job.workdir, position.step, distributed.is_main()) as log:
        for index in range(position.phase, len(job.phases)):
            if index > position.phase:
                position = Position(index, 0, 0, position.step)
            phase = job.phases[index]
            if _left_out(job, phase):
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
    items = data.in_tiles(job.built.dataset, job.model.transform, splits(job.built.split, phase))
    updates, per_epoch = num_updates(phase, items, config["data"]["batch_size"])
    epochs = -(-updates // per_epoch)
    # 2. features that are computed once
    cache = _cache(job, phase, items, caches)
    # 3. the update, compiled
    update = jit_update(devices, job.model.detector, _on_raw_images(phase), state)
    start, step = position.batch, position.step
    with progress.track(phase.name, updates, "step") as report:
        for epoch in range(position.epoch, epochs):
            for number, batch in enumerate(
                job.clock.waiting(_batches(job, index, items, epoch, start, cache)), start=start + 1
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


def _left_out(job: Job, phase: Phase) -> bool:
    return phase.when == ("fresh" if job.carried else "carried")


def _position(index, epoch, number, step, made, updates, per_epoch, epochs) -> Position:
    if made == updates:
        return Position(index, epochs, 0, step)
    return Position(index, epoch + 1, 0, step) if number == per_epoch else Position(index, epoch, number, step)


def _reads_image(job: Job, phase: Phase) -> bool:
    return job.embed is None or phase.needs_image or phase.augment is not None or phase.anomaly_fraction > 0


def _passes(job: Job, like: Phase) -> float:
    """Passes of all phases over the normal images that one phase sees."""
    total = 0.0
    for phase in job.phases:
        if phase.split == like.split and not phase.anomaly_fraction and not _left_out(job, phase):
            updates, per_epoch = num_updates(phase, splits(job.built.split, phase), job.config["data"]["batch_size"])
            total += updates / per_epoch
    return total


def _cache(job: Job, phase: Phase, items: Sequence[Item], caches: dict[str, FeatureCache | None]) -> FeatureCache | None:
    """The features of the phase's images, if several passes need them; the first phase that sees the images computes them."""
    if job.embed is None or phase.anomaly_fraction or _passes(job, phase) <= 1:
        return None
    if phase.split not in caches:
        reason = why_not(job.spec, len(items), job.config["data"]["feature_cache_bytes"], job.devices.count)
        if reason:
            progress.say(f"the features of the {len(items)} images are computed in every epoch: {reason}")
            caches[phase.split] = None
        else:
            loader = _loader(job, items, shuffle=None)
            first = next(_loader(job, items[:1], shuffle=None)).image
            caches[phase.split] = fill_cache(job.embed, np.zeros_like(first), items, loader, job.spec)
    return caches[phase.split]


def _loader(job: Job, items: Sequence[Item], **options) -> Iterator[Batch]:
    config, detector = job.config["data"], job.model.detector
    return data.batches(
        job.built.dataset,
        items,
        job.model.transform,
        config["batch_size"],
        workers=config["workers"],
        process=distributed.process(),
        multiple=job.devices.count,
        raw=True,
        inputs=detector.inputs,
        prepare=detector.prepare,
        **options,
    )


def _batches(job: Job, index: int, items, epoch: int, start: int, cache: FeatureCache | None) -> Iterator[Batch]:
    """The batches of one pass, on the devices, with their features."""
    phase, shuffle = job.phases[index], (job.config["seed"], index, epoch)
    reads, detector = _reads_image(job, phase), job.model.detector
    if cache is not None and not reads and detector.prepare is None and not detector.inputs:
        size = job.config["data"]["batch_size"]
        loader = data.index_batches(job.built.dataset, items, size, shuffle=shuffle, start=start, group=phase.group)
    else:
        loader = _loader(
            job,
            items,
            shuffle=shuffle,
            start=start,
            augment=phase.augment,
            anomaly_fraction=phase.anomaly_fraction,
            group=phase.group,
        )
    for batch in loader:
        if cache is not None:
            batch = batch._replace(features=cache.at(batch.index))
        placed = placement.put_rows(job.devices, batch)
        if cache is None and job.embed is not None:
            placed = placed._replace(features=job.embed(placed.image))
        yield placed if reads else placed._replace(image=None, mask=None)


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
