"""Networks whose running average predicts, as diffusion models have them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step

__all__ = ["Averaged", "averaged_step", "copy_averaged", "init_averaged"]


class Averaged(NamedTuple):
    """A network under training, and what predicts.

    Attributes:
      trained: the network and its optimiser.
      average: a tree like the parameters, their exponential moving average.
    """

    trained: Trained
    average: Any


def init_averaged(variables: Mapping[str, Any], optimizer: optax.GradientTransformation) -> Averaged:
    """The average begins as the parameters."""
    # copies: the driver donates the state
    return Averaged(init_trained(variables, optimizer), jax.tree.map(jnp.array, variables["params"]))


def averaged_step(
    state: Averaged, objective: Callable, optimizer: optax.GradientTransformation, decay: float
) -> tuple[Averaged, dict[str, jax.Array]]:
    """`train_step`, and one step of the average: decay times the old one, 1 - decay times the new parameters."""
    trained, info = train_step(state.trained, objective, optimizer)
    average = optax.incremental_update(trained.variables["params"], state.average, 1 - decay)
    return Averaged(trained, average), info


def copy_averaged(fresh: Averaged, old: Averaged) -> Averaged:
    """`Detector.warm_start`: parameters and average as they are, a new optimiser."""
    return Averaged(copy_variables(fresh.trained, old.trained), jax.tree.map(jnp.array, old.average))
