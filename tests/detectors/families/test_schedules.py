"""Learning rates over a run, against their formulas."""

import jax
import numpy as np
import optax
import pytest

from iadjax.detectors.families.schedules import adamp, amsgrad_w, rate_schedule
from iadjax.errors import UserError

TOTAL = 250


@pytest.mark.parametrize("warmup", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["constant", "cosine", "step"])
def test_rates_follow_their_formulas(kind, warmup):
    if kind == "constant" and not warmup:
        # a number, so that the optimiser keeps no count for it
        assert rate_schedule(kind, 0.2, TOTAL) == 0.2
        return
    # Optax mixes integers with floats
    with jax.numpy_dtype_promotion("standard"):
        rates = jax.vmap(rate_schedule(kind, 0.2, TOTAL, warmup))(np.arange(TOTAL))
    progress = np.arange(TOTAL) / TOTAL
    rest = (progress - warmup) / (1 - warmup)
    after = {
        "constant": np.ones(TOTAL),
        "cosine": 0.5 * (1 + np.cos(np.pi * rest)),
        "step": 0.1 ** np.sum(progress[:, None] >= [0.8, 0.9], axis=1),
    }[kind]
    truth = 0.2 * np.where(progress < warmup, progress / (warmup or 1), after)
    # a milestone may fall to the next step
    off = np.abs(rates - truth) > 1e-4
    assert off.sum() <= (2 if kind == "step" else 0)


@pytest.mark.parametrize(("kind", "warmup"), [("linear", 0.0), ("cosine", 1.0)])
def test_bad_schedules_are_named(kind, warmup):
    with pytest.raises(UserError, match=r"detector.schedule must be one of constant, cosine, step and warmup in \[0, 1\)"):
        rate_schedule(kind, 0.1, 10, warmup)


def test_amsgrad_is_pytorchs():
    torch = pytest.importorskip("torch")
    start, steps = np.array([1.0, -2.0, 0.5], np.float32), np.random.default_rng(0).normal(size=(30, 3)).astype(np.float32)
    # large gradients first: what Optax's form would never forget
    steps[:3] *= 100
    theirs = torch.nn.Parameter(torch.tensor(start))
    reference = torch.optim.AdamW([theirs], lr=0.1, weight_decay=0.05, amsgrad=True)
    ours, optimizer = start, amsgrad_w(0.1, 0.05)
    state = optimizer.init(ours)
    with jax.numpy_dtype_promotion("standard"):
        for gradient in steps:
            theirs.grad = torch.tensor(gradient)
            reference.step()
            updates, state = optimizer.update(gradient, state, ours)
            ours = optax.apply_updates(ours, updates)
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4)


@pytest.mark.parametrize("radial", [0.0, 1.0])
def test_adamp_follows_its_paper(radial):
    rng = np.random.default_rng(0)
    start = rng.normal(size=(400, 3)).astype(np.float32)
    gradients = []
    for _ in range(2):
        gradient = rng.normal(size=(400, 3)).astype(np.float32)
        # orthogonal to each column of the weights, as where a normalisation follows, or not
        gradient -= start * (gradient * start).sum(0) / (start**2).sum(0)
        gradients.append(gradient + radial * start)
    optimizer, ours = adamp(0.01, 0.5), {"w": start, "b": start[0]}
    state = optimizer.init(ours)
    with jax.numpy_dtype_promotion("standard"):
        for gradient in gradients:
            updates, state = optimizer.update({"w": gradient, "b": gradient[0]}, state, ours)
            ours = optax.apply_updates(ours, updates)
    for name, param, steps in (("w", start, gradients), ("b", start[0], [each[0] for each in gradients])):
        p, m, v = param.astype(np.float64), 0.0, 0.0
        for i, g in enumerate(steps, start=1):
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            step, ratio = m / (1 - 0.9**i) / (np.sqrt(v / (1 - 0.999**i)) + 1e-8), 1.0
            if name == "w" and not radial:
                unit = p / np.linalg.norm(p, axis=0)
                step, ratio = step - unit * (unit * step).sum(0), 0.1
            p = p - 0.01 * (step + 0.5 * ratio * p)
        np.testing.assert_allclose(ours[name], p, rtol=2e-4, atol=2e-5)
