"""Learning rates over a run."""

import jax
import jax.numpy as jnp
import optax

from iadjax.errors import UserError

__all__ = ["check_schedule", "rate_schedule", "step_decay"]


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
