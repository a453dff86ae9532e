"""What a phase sees: its images, its batches on the devices, and the features that are computed once."""

from collections.abc import Iterator, Sequence

import numpy as np

from iadjax import data, progress
from iadjax.data import Item
from iadjax.detector import Batch, Phase
from iadjax.experiment.features import FeatureCache, fill_cache, why_not
from iadjax.experiment.job import Job
from iadjax.parallel import distributed, placement

__all__ = ["batches_of", "cache_of", "items_of", "left_out", "num_updates"]


def items_of(split: data.Split, phase: Phase) -> Sequence[Item]:
    """The images that a phase sees: those of its split, anomalies only where it asks for them."""
    items = getattr(split, phase.split)
    return items if phase.anomaly_fraction or phase.labelled else [item for item in items if not item.label]


def num_updates(phase: Phase, items: Sequence[Item], batch_size: int) -> tuple[int, int]:
    """(updates of a phase, those of one pass over its items)."""
    per_epoch = data.num_batches(items, batch_size, phase.anomaly_fraction, phase.group)
    return phase.steps or phase.epochs * per_epoch, per_epoch


def left_out(job: Job, phase: Phase) -> bool:
    """Whether the fit skips the phase, as `Phase.when` says."""
    return phase.when == ("fresh" if job.carried else "carried")


def _reads_image(job: Job, phase: Phase) -> bool:
    return job.embed is None or phase.needs_image or phase.augment is not None or phase.anomaly_fraction > 0


def _passes(job: Job, like: Phase, items: Sequence[Item]) -> float:
    """Passes of all phases over the normal images `items` that one phase sees."""
    total = 0.0
    for phase in job.phases:
        if phase.split == like.split and not phase.anomaly_fraction and not left_out(job, phase):
            updates, per_epoch = num_updates(phase, items, job.config["data"]["batch_size"])
            total += updates / per_epoch
    return total


def cache_of(job: Job, phase: Phase, items: Sequence[Item], caches: dict[str, FeatureCache | None]) -> FeatureCache | None:
    """The features of the phase's images, if several passes need them; the first phase that sees the images computes them."""
    if job.embed is None or phase.anomaly_fraction or _passes(job, phase, items) <= 1:
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


def batches_of(job: Job, index: int, items, epoch: int, start: int, cache: FeatureCache | None) -> Iterator[Batch]:
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
