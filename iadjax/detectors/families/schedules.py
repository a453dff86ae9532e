"""Learning rates over a run and optimisers that several detectors share, by Optax."""

import math

import jax
import jax.numpy as jnp
import optax

from iadjax.errors import UserError

__all__ = ["adam_with_l2", "adamp", "amsgrad_w", "check_schedule", "rate_schedule", "step_decay", "warm_cosine"]

SCHEDULES = ("constant", "cosine", "step")


def adam_with_l2(rate: optax.ScalarOrSchedule, weight_decay: float, **options) -> optax.GradientTransformation:
    """PyTorch's `Adam(weight_decay=...)`: the L2 term is part of the gradient, unlike that of AdamW.

    Args:
      rate: learning rate.
      weight_decay: factor of the parameters in the gradient.
      **options: further keywords of `optax.adam`.
    """
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.adam(rate, **options))


def amsgrad_w(
    rate: optax.ScalarOrSchedule, weight_decay: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """PyTorch's `AdamW(amsgrad=True)` (Reddi et al., ICLR 2018).

    Its denominator is the largest second moment so far, corrected for its bias at the present step. Optax's is the largest of
    corrected ones, and so never falls below the gradient of the first step.

    Args:
      rate: learning rate.
      weight_decay: of AdamW.
      b1, b2, eps: Adam's.
    """

    def init(params):
        mu, nu, largest = (jax.tree.map(jnp.zeros_like, params) for _ in range(3))
        return optax.ScaleByAmsgradState(jnp.zeros((), jnp.int32), mu, nu, largest)

    def update(gradients, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, state.nu, gradients)
        largest = jax.tree.map(jnp.maximum, state.nu_max, nu)
        first, second = 1 - b1**count, 1 - b2**count
        updates = jax.tree.map(lambda m, v: m / first / (jnp.sqrt(v / second) + eps), mu, largest)
        return updates, optax.ScaleByAmsgradState(count, mu, nu, largest)

    scale = optax.GradientTransformation(init, update)
    return optax.chain(scale, optax.add_decayed_weights(weight_decay), optax.scale_by_learning_rate(rate))


def adamp(
    rate: optax.ScalarOrSchedule,
    weight_decay: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    delta: float = 0.1,
    decay_ratio: float = 0.1,
) -> optax.GradientTransformation:
    """AdamP (Heo et al., ICLR 2021): Adam without the radial part of its steps where the loss does not depend on a norm.

    A matrix `[I, O]` is such where the gradients of all columns, or else of the whole, are nearly orthogonal to the weights:
    the largest cosine is below delta / sqrt(size).

    Args:
      rate: learning rate.
      weight_decay: decoupled, as AdamW's.
      b1, b2, eps: Adam's.
      delta: see above.
      decay_ratio: factor of the decay of such a matrix.
    """
    adam = optax.scale_by_adam(b1, b2, eps)

    def projected(step, gradient, param):
        """The step of one array and the factor of its decay."""
        if param.ndim < 2:
            return step, jnp.float32(1)
        whole = lambda x: x.reshape(-1, 1)  # noqa: E731
        columns = lambda x: x.reshape(-1, x.shape[-1])  # noqa: E731
        found, ratio, free = step, jnp.float32(1), jnp.bool_(True)
        for view in (columns, whole):
            p, g, s = (view(x) for x in (param, gradient, step))
            norm = jnp.linalg.norm(p, axis=0, keepdims=True)
            cosine = jnp.abs(jnp.sum(p * g, axis=0, keepdims=True)) / (norm * jnp.linalg.norm(g, axis=0, keepdims=True) + eps)
            radial = p / (norm + eps)
            tangent = (s - radial * jnp.sum(radial * s, axis=0, keepdims=True)).reshape(step.shape)
            taken = free & (jnp.max(cosine) < delta / len(p) ** 0.5)
            found, ratio = jnp.where(taken, tangent, found), jnp.where(taken, jnp.float32(decay_ratio), ratio)
            free &= ~taken
        return found, ratio

    def update(gradients, state, params):
        steps, state = adam.update(gradients, state, params)

        def decayed(step, gradient, param):
            found, ratio = projected(step, gradient, param)
            return found + weight_decay * ratio * param

        return jax.tree.map(decayed, steps, gradients, params), state

    scale = optax.GradientTransformation(adam.init, update)
    return optax.chain(scale, optax.scale_by_learning_rate(rate))


def step_decay(rate: float, factor: float, *milestones: float) -> optax.Schedule:
    """`rate`, multiplied by `factor` from each of the `milestones` (steps, rounded up) on."""
    scales = {}
    for milestone in map(math.ceil, milestones):
        scales[milestone] = scales.get(milestone, 1.0) * factor
    return optax.piecewise_constant_schedule(rate, scales)


def check_schedule(kind: str, warmup: float) -> None:
    """A UserError where `rate_schedule` has no such kind, or the warm-up is outside [0, 1)."""
    if kind not in SCHEDULES or not 0 <= warmup < 1:
        raise UserError(f"detector.schedule must be one of {', '.join(SCHEDULES)} and warmup in [0, 1); got {kind!r}, {warmup}")


def rate_schedule(kind: str, rate: float, steps: int, warmup: float = 0.0) -> optax.ScalarOrSchedule:
    """A learning rate over a whole run.

    Args:
      kind: "constant"; "cosine": to zero at the end (Loshchilov & Hutter, ICLR 2017); "step": to a tenth at 80 % and again
        at 90 % of the steps.
      rate: its largest value.
      steps: steps of the run.
      warmup: fraction of the steps in which it rises linearly from zero.

    Raises:
      UserError: an unknown kind, or a warm-up outside [0, 1).
    """
    check_schedule(kind, warmup)
    rising = round(warmup * steps)
    if kind == "constant" and not rising:
        return rate
    if kind == "cosine":
        after = optax.cosine_decay_schedule(rate, max(1, steps - rising))
    elif kind == "step":
        after = step_decay(rate, 0.1, *(round(fraction * steps) - rising for fraction in (0.8, 0.9)))
    else:
        after = optax.constant_schedule(rate)
    return optax.join_schedules([optax.linear_schedule(0.0, rate, rising), after], [rising]) if rising else after


def warm_cosine(rate: float, final: float, steps: int, warmup: int) -> optax.Schedule:
    """A rate that rises linearly from zero in `warmup` steps and falls to `final` by a cosine, as Dinomaly's authors have it.

    Args:
      rate, final: its largest value, and that at the end of the run.
      steps: steps of the run.
      warmup: the first of them, the last of which has the largest rate.
    """
    after = optax.cosine_decay_schedule(rate, max(1, steps - warmup), final / rate)
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup - 1), after], [warmup]) if warmup > 1 else after
