"""What one fit consists of."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from iadjax import config as configs
from iadjax.data.images import unit_range
from iadjax.detector import DataSpec, Phase, State
from iadjax.experiment import checkpoint, record
from iadjax.experiment.checkpoint import Position
from iadjax.parallel import placement
from iadjax.parallel.jit import jit_embed

__all__ = ["Job", "fold"]


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
