"""Builders for families of detectors, so that a detector's own file holds only its mathematics."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec

from iadjax.detector import Detector, Phase
from iadjax.detectors.bank import Bank, memory_bank
from iadjax.errors import UserError
from iadjax.sharding import AXIS

__all__ = [
    "Bank",
    "Moments",
    "Trained",
    "carry_variables",
    "check_schedule",
    "gradient",
    "memory_bank",
    "rate_schedule",
    "statistics",
    "step_decay",
    "trainer",
]


class Moments(NamedTuple):
    """State of a Gaussian detector while it sees images: streaming moments at every position (Chan et al., 1979).

    Attributes:
      constants: what was drawn at the beginning (a channel subset).
      count: float32 scalar; images seen.
      mean: `[P, D]`.
      scatter: `[P, D, D]`, the sum of (x - mean)(x - mean)^T; `finalize` replaces it by what prediction needs.
    """

    constants: Any
    count: jax.Array
    mean: jax.Array
    scatter: jax.Array


def statistics(draw: Callable, embed: Callable, factorize: Callable, predict: Callable) -> Detector:
    """A detector that fits a Gaussian to the features at each position, in one pass and without keeping them.

    Args:
      draw: `(key, frozen, image_shape) -> constants`, random numbers that stay with the model; may return ().
      embed: `(constants, frozen, image [B, H, W, 3]) -> [B, h, w, D]`.
      factorize: `(covariance [P, D, D]) -> [P, D, D]`, once, outside jit.
      predict: `(moments, frozen, image) -> Prediction`, with the factor in `moments.scatter`.
    """

    def init(key, frozen, spec):
        constants = draw(key, frozen, spec.image_shape)
        image = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
        _, height, width, depth = jax.eval_shape(embed, constants, frozen, image).shape
        places = height * width
        return Moments(constants, jnp.zeros(()), jnp.zeros((places, depth)), jnp.zeros((places, depth, depth)))

    def update(key, state, frozen, batch):
        del key
        x = embed(state.constants, frozen, batch.image)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        weight = batch.valid.astype(x.dtype)
        number = jnp.sum(weight)
        count = state.count + number
        mean = jnp.einsum("b,bpd->pd", weight, x, precision="highest") / number
        delta, centred = mean - state.mean, weight[:, None, None] * (x - mean)
        # one product for the batch's own scatter and for the step of its mean
        step = delta * jnp.sqrt(state.count * number / count)
        rows = jnp.concatenate([centred, step[None]])
        scatter = state.scatter + jnp.einsum("bpi,bpj->pij", rows, rows, precision="highest")
        return Moments(state.constants, count, state.mean + delta * number / count, scatter), {"images": count}

    def finalize(key, state, frozen):
        del key, frozen
        covariance = state.scatter / jnp.maximum(state.count - 1, 1)
        return state._replace(scatter=factorize(covariance))

    def partition(state):
        # by positions: every one has its own Gaussian, and an all-reduce of [P, D, D] in each step would be gigabytes
        whole, places = PartitionSpec(), PartitionSpec(AXIS)
        return Moments(whole, whole, places, places)

    return Detector(init=init, phases=(Phase("fit", update, finalize),), predict=predict, partition=partition)


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


def step_decay(rate: float, factor: float, *milestones: jax.Array | float) -> optax.Schedule:
    """`rate`, multiplied by `factor` at each of `milestones` (steps; they may be traced, which Optax's own may not)."""

    def schedule(count):
        passed = sum(jnp.where(count >= milestone, 1.0, 0.0) for milestone in milestones)
        return rate * factor**passed

    return schedule


SCHEDULES = ("constant", "cosine", "step")

# Optax wants whole, known numbers of steps: its schedules run over so many, and are stretched to what a run has
_STEPS = 10_000


def check_schedule(kind: str, warmup: float) -> None:
    """A UserError where `rate_schedule` has no such kind, or the warm-up is outside [0, 1)."""
    if kind not in SCHEDULES or not 0 <= warmup < 1:
        raise UserError(f"detector.schedule must be one of {', '.join(SCHEDULES)} and warmup in [0, 1); got {kind!r}, {warmup}")


def rate_schedule(kind: str, rate: float, total: jax.Array | float, warmup: float = 0.0) -> optax.ScalarOrSchedule:
    """A learning rate over a whole run, by Optax.

    Args:
      kind: "constant"; "cosine": to zero at the end (Loshchilov & Hutter, ICLR 2017); "step": to a tenth at 80 % and again
        at 90 % of the steps.
      rate: its largest value.
      total: steps of the run; it may be traced, which Optax's own numbers of steps may not.
      warmup: share of the steps in which it rises linearly from zero.

    Raises:
      UserError: an unknown kind, or a warm-up outside [0, 1).
    """
    check_schedule(kind, warmup)
    rising = round(warmup * _STEPS)
    if kind == "constant" and not rising:
        return rate
    if kind == "cosine":
        after = optax.cosine_decay_schedule(rate, _STEPS - rising)
    elif kind == "step":
        after = optax.piecewise_constant_schedule(rate, {round(share * _STEPS) - rising: 0.1 for share in (0.8, 0.9)})
    else:
        after = optax.constant_schedule(rate)
    whole = optax.join_schedules([optax.linear_schedule(0.0, rate, rising), after], [rising]) if rising else after
    return lambda count: whole(count * (_STEPS / total))
