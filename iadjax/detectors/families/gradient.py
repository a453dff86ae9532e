"""Detectors that are trained by gradients, and the pieces that other detectors build their training from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax.detector import DataSpec, Detector, Phase
from iadjax.parallel.axis import all_sum

__all__ = ["Trained", "copy_variables", "gradient", "gradient_phase", "init_trained", "mean_variables", "train_step"]


class Trained(NamedTuple):
    """A network under training.

    Attributes:
      variables: {"params": ..., and other collections such as "batch_stats"}.
      optimizer: the state of the Optax optimiser.
    """

    variables: Mapping[str, Any]
    optimizer: Any


def init_trained(variables: Mapping[str, Any], optimizer: optax.GradientTransformation) -> Trained:
    """Variables with a new state of the optimiser."""
    return Trained(variables, optimizer.init(variables["params"]))


def train_step(
    trained: Trained, objective: Callable, optimizer: optax.GradientTransformation
) -> tuple[Trained, dict[str, jax.Array]]:
    """One step of one optimiser. A detector with two optimisers takes two such steps in one `update`.

    Args:
      trained: before the step.
      objective: `variables -> (loss, (collections, info))`: a scalar, the changed collections other than "params" ({} if
        there are none), scalars for the log. Loss and scalars are sums over the batch's rows, as those of `losses.mean`.
      optimizer: what made `trained.optimizer`.

    Returns:
      `(trained, info)` after the step; `info` holds the loss too.
    """

    def of_params(params):
        return objective({**trained.variables, "params": params})

    params = trained.variables["params"]
    (value, (collections, info)), gradients = jax.value_and_grad(of_params, has_aux=True)(params)
    value, info, gradients = all_sum((value, info, gradients))
    # Optax counts steps in integers and mixes them with floats
    with jax.numpy_dtype_promotion("standard"):
        updates, state = optimizer.update(gradients, trained.optimizer, params)
    variables = {**trained.variables, **collections, "params": optax.apply_updates(params, updates)}
    return Trained(variables, state), {"loss": value, **info}


def gradient_phase(loss: Callable, optimizer: optax.GradientTransformation, name: str = "train", **fields) -> Phase:
    """The phase of a state that is a `Trained`.

    Args:
      loss: `(key, variables, frozen, batch) -> (loss, (collections, info))`, see `train_step`.
      optimizer: an Optax optimiser.
      name: of the phase.
      **fields: further fields of the `Phase`: epochs or steps, augment, anomaly_fraction.
    """

    def update(key, state, frozen, batch):
        return train_step(state, lambda variables: loss(key, variables, frozen, batch), optimizer)

    return Phase(name, update, **fields)


def gradient(
    init_variables: Callable,
    loss: Callable,
    predict: Callable,
    optimizer: Callable[[DataSpec], optax.GradientTransformation],
    *,
    embed: Callable | None = None,
    precompute: Callable | None = None,
    **phase,
) -> Detector:
    """A detector that is trained by gradients in one phase.

    Args:
      init_variables: `(key, frozen, spec) -> variables`.
      loss: see `gradient_phase`.
      predict: `(variables, frozen, batch) -> Prediction`; with `precompute`, of what that makes of the variables.
      optimizer: `spec -> optimiser`: the numbers of steps are known.
      embed: see `Detector`.
      precompute: `(variables, frozen) -> tree`, see `Detector`.
      **phase: further fields of the `Phase`.
    """

    def init(key, frozen, spec):
        return init_trained(init_variables(key, frozen, spec), optimizer(spec))

    return Detector(
        init=init,
        phases=lambda spec: (gradient_phase(loss, optimizer(spec), **phase),),
        predict=predict if precompute else lambda state, frozen, batch: predict(state.variables, frozen, batch),
        embed=embed,
        warm_start=copy_variables,
        merge=mean_variables,
        precompute=precompute and (lambda state, frozen: precompute(state.variables, frozen)),
    )


def copy_variables(fresh: Trained, old: Trained) -> Trained:
    """`Detector.warm_start` of a trained network: its variables as they are, a new optimiser."""
    # copies: the driver donates the state
    return Trained(jax.tree.map(jnp.array, old.variables), fresh.optimizer)


def mean_variables(states: Sequence[Trained], weights: np.ndarray) -> Trained:
    """`Detector.merge` of a trained network: the weighted mean of the variables (FedAvg, McMahan et al., AISTATS 2017).

    The state of the optimiser is that of the first site.
    """

    def mean(*leaves):
        if not jnp.issubdtype(leaves[0].dtype, jnp.inexact):
            return leaves[0]
        return sum(float(weight) * leaf for weight, leaf in zip(weights, leaves, strict=True)).astype(leaves[0].dtype)

    return Trained(jax.tree.map(mean, *(state.variables for state in states)), states[0].optimizer)
