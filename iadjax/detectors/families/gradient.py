"""Detectors that are trained by gradients."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from iadjax.detector import Detector, Phase

__all__ = ["Trained", "carry_variables", "gradient", "trainer"]


class Trained(NamedTuple):
    """State of a detector that is trained by gradients.

    Attributes:
      variables: {"params": ..., and other collections such as "batch_stats"}.
      optimizer: the state of the Optax optimiser.
      steps_per_epoch: int32 scalar, for schedules that count epochs.
    """

    variables: Mapping[str, Any]
    optimizer: Any
    steps_per_epoch: jax.Array


def carry_variables(fresh: Trained, old: Trained) -> Trained:
    """`Detector.carry` of a trained network: its variables as they are, a new optimiser."""
    # copies: the driver donates the state
    return fresh._replace(variables=jax.tree.map(jnp.array, old.variables))


def trainer(
    init_variables: Callable, loss: Callable, optimizer: Callable[[jax.Array], optax.GradientTransformation]
) -> tuple[Callable, Callable]:
    """What one phase of training by gradients is made of; `gradient` wraps it for detectors that have only that phase.

    Args:
      init_variables: `(key, frozen, spec) -> variables`.
      loss: `(key, variables, frozen, batch) -> (loss, (collections, info))`: a scalar, the changed collections other
        than "params" ({} if there are none), scalars for the log.
      optimizer: `steps_per_epoch -> optimiser`.

    Returns:
      `init(key, frozen, spec) -> Trained` and `update(key, trained, frozen, batch) -> (trained, info)`.
    """

    def init(key, frozen, spec):
        variables = init_variables(key, frozen, spec)
        steps = jnp.int32(spec.steps_per_epoch)
        return Trained(variables, optimizer(steps).init(variables["params"]), steps)

    def update(key, state, frozen, batch):
        def objective(params):
            return loss(key, {**state.variables, "params": params}, frozen, batch)

        params = state.variables["params"]
        (value, (collections, info)), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        updates, optimizer_state = optimizer(state.steps_per_epoch).update(gradients, state.optimizer, params)
        variables = {**state.variables, **collections, "params": optax.apply_updates(params, updates)}
        return Trained(variables, optimizer_state, state.steps_per_epoch), {"loss": value, **info}

    return init, update


def gradient(
    init_variables: Callable,
    loss: Callable,
    predict: Callable,
    optimizer: Callable[[jax.Array], optax.GradientTransformation],
    **phase,
) -> Detector:
    """A detector that is trained by gradients in one phase.

    Args:
      init_variables, loss, optimizer: see `trainer`.
      predict: `(variables, frozen, image) -> Prediction`.
      **phase: further fields of the `Phase`: epochs or steps, augment, anomaly_share.
    """
    init, update = trainer(init_variables, loss, optimizer)
    return Detector(
        init=init,
        phases=(Phase("train", update, **phase),),
        predict=lambda state, frozen, image: predict(state.variables, frozen, image),
        carry=carry_variables,
    )
