"""StableAdamW against a slow reading of its formulas, number by number in float64, and its schedule."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from iadjax.detectors.families.schedules import warm_cosine
from iadjax.detectors.families.stable_adamw import stable_adamw

RATES = [0.0, 0.1, 0.07, 0.03, 0.01]


def reference(parameters, gradients, decay, beta1, beta2, epsilon, threshold):
    """Parameters after each step of one tensor."""
    p, m, v, largest = list(parameters), *([0.0] * len(parameters) for _ in range(3))
    for t, (rate, g) in enumerate(zip(RATES, gradients, strict=True), start=1):
        p = [each * (1 - rate * decay) for each in p]
        m = [beta1 * a + (1 - beta1) * b for a, b in zip(m, g, strict=True)]
        v = [beta2 * a + (1 - beta2) * b * b for a, b in zip(v, g, strict=True)]
        largest = [max(pair) for pair in zip(largest, v, strict=True)]
        denominator = [math.sqrt(each) / math.sqrt(1 - beta2**t) + epsilon for each in largest]
        square = [(a / b) ** 2 for a, b in zip(g, denominator, strict=True)]
        size = rate / (1 - beta1**t) / max(1.0, math.sqrt(sum(square) / len(square)) / threshold)
        p = [a - size * b / c for a, b, c in zip(p, m, denominator, strict=True)]
        yield p


@pytest.mark.parametrize("threshold", [1.0, 0.3])
def test_every_step_is_that_of_the_formulas(threshold):
    rng = np.random.default_rng(0)
    # squares fall, so that the maximum matters; the fourth gradient is large, so that its step is made smaller
    gradients = {name: [s * rng.normal(size=n) for s in (1.0, 0.3, 0.1, 5.0, 0.2)] for name, n in (("a", 6), ("b", 1))}
    params = {name: jnp.asarray(rng.normal(size=len(steps[0])), jnp.float32) for name, steps in gradients.items()}
    options = {"weight_decay": 0.5, "beta1": 0.8, "beta2": 0.9, "epsilon": 1e-3, "threshold": threshold}
    optimizer = stable_adamw(lambda count: jnp.array(RATES)[count], **options)
    expected = {
        name: reference(np.asarray(params[name], np.float64), steps, *options.values()) for name, steps in gradients.items()
    }
    state = optimizer.init(params)
    for i in range(len(RATES)):
        step = {name: jnp.asarray(each[i], jnp.float32) for name, each in gradients.items()}
        updates, state = jax.jit(optimizer.update)(step, state, params)
        params = optax.apply_updates(params, updates)
        for name, steps in expected.items():
            np.testing.assert_allclose(params[name], next(steps), rtol=2e-5, atol=1e-6)
    assert state.count == len(RATES)


def test_without_maximum_and_clipping_it_is_optax_s():
    params = jnp.array([1.0, -2.0])
    ours, theirs = stable_adamw(0.1, 0.2, epsilon=1e-8, threshold=1e9), optax.adamw(0.1, weight_decay=0.2)
    state, other = ours.init(params), theirs.init(params)
    # growing gradients: the maximum is the last one
    for gradient in (jnp.array([0.1, -0.2]), jnp.array([0.5, 1.0])):
        update, state = ours.update(gradient, state, params)
        with jax.numpy_dtype_promotion("standard"):
            expected, other = theirs.update(gradient, other, params)
        np.testing.assert_allclose(update, expected, rtol=1e-5)


def test_the_rate_rises_and_falls_as_a_table_says():
    steps, warmup = 40, 5
    rising = np.linspace(0, 2e-3, warmup)
    place = np.arange(steps - warmup)
    falling = 2e-4 + 0.5 * (2e-3 - 2e-4) * (1 + np.cos(np.pi * place / len(place)))
    with jax.numpy_dtype_promotion("standard"):
        rates = jax.vmap(warm_cosine(2e-3, 2e-4, steps, warmup))(np.arange(steps + 1))
    np.testing.assert_allclose(rates, [*rising, *falling, 2e-4], rtol=1e-5, atol=1e-9)
    assert float(warm_cosine(2e-3, 2e-4, steps, 0)(0)) == pytest.approx(2e-3)
