"""The Sinkhorn divergence against its definition by plain iterations in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops


def transport(x, y, a, b, epsilon):
    """The dual value of entropic transport, after many iterations at one epsilon."""
    cost = 0.5 * ((x[:, None] - y[None]) ** 2).sum(-1)
    f, g = np.zeros(len(x)), np.zeros(len(y))

    def smooth(log, potential, cost):
        inside = log[None] + (potential[None] - cost) / epsilon
        top = inside.max(1)
        return -epsilon * (top + np.log(np.exp(inside - top[:, None]).sum(1)))

    for _ in range(5000):
        f = smooth(np.log(b), g, cost)
        g = smooth(np.log(a), f, cost.T)
    return a @ f + b @ g


def points(seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.random(5) + 0.1, rng.random(4) + 0.1
    return rng.normal(size=(5, 3)), rng.normal(size=(4, 3)) + 0.5, a / a.sum(), b / b.sum()


def test_it_is_the_debiased_transport():
    x, y, a, b = points()
    truth = transport(x, y, a, b, 0.25) - 0.5 * transport(x, x, a, a, 0.25) - 0.5 * transport(y, y, b, b, 0.25)
    arrays = [jnp.asarray(each, jnp.float32) for each in (x, y, a, b)]
    found = jax.jit(lambda *args: ops.sinkhorn_divergence(*args, blur=0.5, scaling=0.9995))(*arrays)
    np.testing.assert_allclose(found, truth, rtol=1e-3)
    slope = jax.jit(jax.grad(lambda x: ops.sinkhorn_divergence(x, *arrays[1:], blur=0.5, scaling=0.9995)))(arrays[0])
    for i in range(3):
        moved = [x.copy(), x.copy()]
        moved[0][i, 1] += 1e-4
        moved[1][i, 1] -= 1e-4
        values = [transport(m, y, a, b, 0.25) - 0.5 * transport(m, m, a, a, 0.25) for m in moved]
        np.testing.assert_allclose(slope[i, 1], (values[0] - values[1]) / 2e-4, rtol=1e-2, atol=1e-4)


def test_points_without_weight_do_not_count():
    x, y, a, b = (jnp.asarray(each, jnp.float32) for each in points())
    more = jnp.concatenate([x, 9 * x[:2]]), jnp.concatenate([a, jnp.zeros(2)])
    found = ops.sinkhorn_divergence(more[0], y, more[1], b, diameter=50.0)
    np.testing.assert_allclose(found, ops.sinkhorn_divergence(x, y, a, b, diameter=50.0), rtol=1e-5)
    assert np.all(np.isfinite(jax.grad(lambda x: ops.sinkhorn_divergence(x, y, more[1], b))(more[0])))
