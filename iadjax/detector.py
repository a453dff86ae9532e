"""The whole contract: a detector is a value made of pure functions over one state.

A detector is built by a function with keyword options, as an optimiser is in Optax, and run by one driver, `iadjax.fit`.
Nothing in here is jitted: the driver jits `Phase.update` and `Detector.predict` once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import PartitionSpec

__all__ = ["Batch", "DataSpec", "Detector", "Frozen", "Phase", "Prediction", "State", "keep"]

State = Any
"""One pytree that holds everything that fitting changes, and nothing else."""

Frozen = Mapping[str, Any]
"""Variables of frozen networks by name: an argument of every function, never closed over, never checkpointed."""


class Batch(NamedTuple):
    """One batch of images; the last one of a pass is padded, and `valid` says which rows are real.

    Attributes:
      image: `[B, H, W, 3]` float32, RGB in [0, 1].
      mask: `[B, H, W]` uint8 in {0, 1}; 1 where the image is anomalous.
      label: `[B]` int32; 0 normal, 1 anomalous.
      category: `[B]` int32; index into `DataSpec.categories`.
      index: `[B]` int32; position of the image in its split, -1 in padded rows.
      valid: `[B]` bool; False in padded rows.
      extra: what the phase's `augment` made of each image, by name, `[B, ...]`; empty without one.
    """

    image: jax.Array
    mask: jax.Array
    label: jax.Array
    category: jax.Array
    index: jax.Array
    valid: jax.Array
    extra: Mapping[str, jax.Array] = {}


class DataSpec(NamedTuple):
    """What a detector may know of the data before it sees any.

    Attributes:
      num_images: number of normal training images.
      image_shape: (height, width, 3) after resize and crop.
      categories: names of the categories, in the order of `Batch.category`.
      num_validation: number of held-out normal images.
      steps_per_epoch: batches in one pass over the training images.
      batch_size: images in a batch, padding not counted.
    """

    num_images: int
    image_shape: tuple[int, int, int]
    categories: tuple[str, ...]
    num_validation: int = 0
    steps_per_epoch: int = 1
    batch_size: int = 1


class Prediction(NamedTuple):
    """Raw anomaly scores: larger is more anomalous.

    Attributes:
      score: `[B]` float32, one per image.
      map: `[B, H, W]` float32, one per pixel, at the resolution of the input.
    """

    score: jax.Array
    map: jax.Array


def keep(key: jax.Array, state: State, frozen: Frozen) -> State:
    """The default `Phase.finalize`: the identity on the state."""
    del key, frozen
    return state


def on_every_device(state: State) -> PartitionSpec:
    """The default `Detector.partition`: nothing is split."""
    del state
    return PartitionSpec()


class Phase(NamedTuple):
    """One stage of fitting: `epochs` passes of `update` over a split, then `finalize` once.

    Without `anomaly_share` a phase sees the normal images of its split only.

    Attributes:
      name: "fit", "train", "calibrate", ...
      update: `(key, state, frozen, batch) -> (state, info)`; one step over one batch, jitted by the driver.
        `info` is a dict of scalars for the log.
      finalize: `(key, state, frozen) -> state`; once after the last batch, outside jit; may change shapes.
      between: `(key, state, frozen) -> state`; after every update, outside jit, if given: what `jit` cannot do and cannot wait
        for the end (compressing a bank that is full). Keeps shapes; its key is the same after every update of a phase.
      epochs: passes over the split.
      steps: if above 0, that many updates instead, over as many passes as they take.
      split: "train", or "validation" (held-out normal images).
      augment: `(rng, image [H, W, 3] float32) -> {name: array}`; runs per image in the threads of the input pipeline and
        fills `Batch.extra`; `rng` is a NumPy generator that depends on (seed, phase, epoch, image) alone.
      anomaly_share: if above 0, the share of every batch that is drawn (with replacement) from the labelled anomalies of
        the split; a pass is then one over its normal images.
    """

    name: str
    update: Callable[[jax.Array, State, Frozen, Batch], tuple[State, dict[str, jax.Array]]]
    finalize: Callable[[jax.Array, State, Frozen], State] = keep
    epochs: int = 1
    steps: int = 0
    split: str = "train"
    augment: Callable[[np.random.Generator, np.ndarray], dict[str, np.ndarray]] | None = None
    anomaly_share: float = 0.0
    between: Callable[[jax.Array, State, Frozen], State] | None = None


class Detector(NamedTuple):
    """An anomaly detector.

    Attributes:
      init: `(key, frozen, spec) -> state`; allocates everything that fitting will change.
      phases: the stages of fitting, in order; empty for a zero-shot detector.
      predict: `(state, frozen, image [B, H, W, 3]) -> Prediction`; pure, never sees labels, and the scores of an image
        do not depend on its batch mates.
      partition: `state -> PartitionSpecs`, a tree like the state or a prefix of it: which arrays are split over the devices,
        `PartitionSpec("data")` by rows; those whose rows the number of devices does not divide are on every device.
      carry: `(fresh, old) -> state`; what a fit on further images (the next task of a continual run) begins with, from the
        state that `init` made for them and the one fitted before; outside jit, and it must share no array with `old`. None:
        nothing of the past is kept.
    """

    init: Callable[[jax.Array, Frozen, DataSpec], State]
    phases: tuple[Phase, ...]
    predict: Callable[[State, Frozen, jax.Array], Prediction]
    partition: Callable[[State], Any] = on_every_device
    carry: Callable[[State, State], State] | None = None
