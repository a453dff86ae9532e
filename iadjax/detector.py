"""The whole contract: a detector is a value made of pure functions over one state.

A detector is built by a function with keyword options, as an optimiser is in Optax, and run by one driver, `iadjax.fit`.
Nothing in here is jitted: the driver jits `Detector.embed`, `Phase.update` and `Detector.predict` once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

__all__ = ["Batch", "DataSpec", "Detector", "Frozen", "Phase", "Prediction", "State", "abstract_batch", "embed_shapes", "keep"]

State = Any
"""One pytree that holds everything that fitting changes, and nothing else."""

Frozen = Mapping[str, Any]
"""Variables of frozen networks by name: an argument of every function, never closed over, never checkpointed."""


class Batch(NamedTuple):
    """One batch of images; the last one of a pass is padded, and `valid` says which rows are real.

    Attributes:
      image: `[B, H, W, 3]` float32, RGB in [0, 1]; None in the phases of a detector with `embed` that do not ask for it
        (`Phase.needs_image`).
      features: what `Detector.embed` made of the image; () for a detector without `embed`.
      category: `[B]` int32; index into `DataSpec.categories`; -1 where it is not known.
      index: `[B]` int32; position of the image in its split; -1 in padded rows and for images of no split.
      extra: further arrays by name, `[B, ...]`: the inputs of the data set (`Detector.inputs`), what `Detector.prepare` and
        the phase's `augment` made of each image.
      valid: `[B]` bool; False in padded rows.
      mask: `[B, H, W]` uint8 in {0, 1}, 1 where the image is anomalous; None in `predict`, and where `image` is None.
      label: `[B]` int32; 0 normal, 1 anomalous; None in `predict`.
    """

    image: jax.Array | None
    features: Any
    category: jax.Array
    # a tuple has a method of this name
    index: jax.Array  # type: ignore[assignment]
    extra: Mapping[str, jax.Array]
    valid: jax.Array
    mask: jax.Array | None = None
    label: jax.Array | None = None


class DataSpec(NamedTuple):
    """What a detector may know of the data before it sees any.

    Attributes:
      num_images: number of normal training images.
      image_shape: (height, width, 3) after resize and crop.
      categories: names of the categories, in the order of `Batch.category`.
      num_validation: number of held-out normal images.
      steps_per_epoch: batches in one pass over the normal training images.
      batch_size: images in a batch, padding not counted.
      features: shapes and dtypes (`jax.ShapeDtypeStruct`) of `Detector.embed` for a batch of one image; () without `embed`.
    """

    num_images: int
    image_shape: tuple[int, int, int]
    categories: tuple[str, ...]
    num_validation: int = 0
    steps_per_epoch: int = 1
    batch_size: int = 1
    features: Any = ()


def abstract_batch(spec: DataSpec) -> Batch:
    """Shapes and dtypes of a batch of one image, for `jax.eval_shape`; without `extra`."""

    def array(shape, dtype):
        return jax.ShapeDtypeStruct((1, *shape), dtype)

    return Batch(
        image=array(spec.image_shape, jnp.float32),
        features=spec.features,
        category=array((), jnp.int32),
        index=array((), jnp.int32),
        extra={},
        valid=array((), bool),
        mask=array(spec.image_shape[:2], jnp.uint8),
        label=array((), jnp.int32),
    )


class Prediction(NamedTuple):
    """Raw anomaly scores: larger is more anomalous.

    Attributes:
      score: `[B]` float32, one per image.
      map: `[B, H, W]` float32, one per pixel, at the resolution of the input; None where the detector does not localise: then
        pixel metrics are null and pictures show no map.
    """

    score: jax.Array
    map: jax.Array | None = None


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

    Without `anomaly_fraction` or `labelled` a phase sees the normal images of its split only.

    Attributes:
      name: "fit", "train", "calibrate", ...
      update: `(key, state, frozen, batch) -> (state, info)`; one step over one batch, jitted by the driver.
        `info` is a dict of scalars for the log. Sums over rows are `parallel.axis.all_sum` of those of the batch.
      finalize: `(key, state, frozen) -> state`; once after the last batch, outside jit; may change shapes and the NamedTuple.
      epochs: passes over the split.
      steps: if above 0, that many updates instead, over as many passes as they take.
      split: "train", or "validation" (held-out normal images).
      augment: `(rng, image [H, W, 3] float32, draw) -> {name: array}`; runs per image in the threads of the input pipeline and
        fills `Batch.extra`; `rng` is a NumPy generator that depends on (seed, phase, epoch, row) alone, and `draw()` is
        another normal image of the same category (the same one where there is no other).
      anomaly_fraction: if above 0, the fraction of every batch that is drawn (with replacement) from the labelled anomalies
        of the split; a pass is then one over its normal images.
      between: `(key, state, frozen) -> state`; after every update, outside jit, if given: what `jit` cannot do and cannot wait
        for the end (compressing a bank that is full). Keeps shapes; its key is the same after every update of a phase.
      finalized: `state -> state`: a tree nested as what `finalize` returns, for a state of `init`'s shapes; None where
        `finalize` keeps the nesting. A checkpoint is put back into it.
      when: "always"; "fresh": skipped in a fit that goes on from an earlier state; "carried": only in such a fit.
      group: ""; "category": every batch is of one category.
      needs_image: whether `update` reads `Batch.image` or `Batch.mask`. Only asked of detectors with `embed`; phases with
        `augment` or `anomaly_fraction` get them anyway.
      labelled: whether a pass is one over all images of the split, labelled anomalies as well, in one random order.
    """

    name: str
    update: Callable[[jax.Array, State, Frozen, Batch], tuple[State, dict[str, jax.Array]]]
    finalize: Callable[[jax.Array, State, Frozen], State] = keep
    epochs: int = 1
    steps: int = 0
    split: str = "train"
    augment: Callable[[np.random.Generator, np.ndarray, Callable[[], np.ndarray]], dict[str, np.ndarray]] | None = None
    anomaly_fraction: float = 0.0
    between: Callable[[jax.Array, State, Frozen], State] | None = None
    finalized: Callable[[State], State] | None = None
    when: str = "always"
    group: str = ""
    needs_image: bool = False
    labelled: bool = False


class Detector(NamedTuple):
    """An anomaly detector.

    Attributes:
      init: `(key, frozen, spec) -> state`; allocates everything that fitting will change.
      phases: `spec -> tuple of Phase`: the stages of fitting, in order; () for a zero-shot detector. Numbers of steps follow
        from the spec, so that Optax's schedules serve as they are.
      predict: `(state, frozen, batch) -> Prediction`; pure, never sees labels, and the scores of an image do not depend on its
        batch mates.
      embed: `(frozen, image [B, H, W, 3]) -> features`: a tree of arrays `[B, ...]` by a pure function that fitting never
        changes. The driver may compute it once for each training image and keep it. None: `Batch.features` is ().
      inputs: names in `Batch.extra` that the detector needs of the data set ("xyz").
      prepare: `(image [H, W, 3] float32, extra) -> {name: array}`: work on the host for each image, in training and in
        prediction, before the batch is made; it joins `Batch.extra`.
      partition: `state -> PartitionSpecs`, a tree like the state or a prefix of it: which arrays are split over the devices,
        `PartitionSpec("data")` by rows; those whose rows the number of devices does not divide are on every device.
      warm_start: `(fresh, old) -> state`; what a fit on further images (the next task of a continual run) begins with, from
        the state that `init` made for them and the one fitted before; outside jit, and it must share no array with `old`.
        None: nothing of the past is kept.
      merge: `(states, weights) -> state`: one fitted state from those of several sites, `weights` their fractions of the
        images; outside jit. None: states of several sites cannot be merged.
      false_alarms: whether scores and maps are -log10 of numbers of false alarms, as the threshold rule "a_contrario" asks.
      precompute: `(state, frozen) -> tree`: what `predict` takes in place of the state, computed once for a run; pure. None:
        the state itself.
    """

    init: Callable[[jax.Array, Frozen, DataSpec], State]
    phases: Callable[[DataSpec], tuple[Phase, ...]]
    predict: Callable[[State, Frozen, Batch], Prediction]
    embed: Callable[[Frozen, jax.Array], Any] | None = None
    inputs: tuple[str, ...] = ()
    prepare: Callable[[np.ndarray, Mapping[str, np.ndarray]], dict[str, np.ndarray]] | None = None
    partition: Callable[[State], Any] = on_every_device
    warm_start: Callable[[State, State], State] | None = None
    merge: Callable[[list[State], np.ndarray], State] | None = None
    false_alarms: bool = False
    precompute: Callable[[State, Frozen], Any] | None = None


def embed_shapes(detector: Detector, frozen: Frozen, image_shape: tuple[int, int, int]) -> Any:
    """Shapes and dtypes of `Detector.embed` for a batch of one image, which `DataSpec.features` holds; () without `embed`."""
    if detector.embed is None:
        return ()
    return jax.eval_shape(detector.embed, frozen, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
