"""Optimal transport between small sets of points."""

import math

import jax
import jax.numpy as jnp

from iadjax.ops.distances import squared_distances

__all__ = ["sinkhorn_divergence"]


def sinkhorn_divergence(
    x: jax.Array,
    y: jax.Array,
    x_weights: jax.Array | None = None,
    y_weights: jax.Array | None = None,
    *,
    blur: float = 0.05,
    scaling: float = 0.95,
    diameter: float = 10.0,
) -> jax.Array:
    """The debiased Sinkhorn divergence of two sets of weighted points, with the cost |x - y|^2 / 2 (Feydy et al., 2019).

    OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2, each regularised by the entropy with epsilon = blur^2. The logarithm of the kernel
    is used throughout, and epsilon falls from diameter^2 by the factor scaling^2 at a time. The gradient is that of the last
    iteration, as in geomloss.

    Args:
      x, y: `[N, D]` and `[M, D]`.
      x_weights, y_weights: `[N]` and `[M]`, which sum to one; equal by default. Points of weight 0 do not count.
      blur, scaling: see above; scaling in (0, 1). The nearer to 1, the more iterations, and the nearer the limit.
      diameter: at least the largest distance.

    Returns:
      A scalar, at least 0 up to rounding; 0 for equal sets.
    """
    logs = [
        jnp.log(jnp.full(len(points), 1 / len(points), points.dtype) if weights is None else weights)
        for points, weights in ((x, x_weights), (y, y_weights))
    ]
    steps = math.ceil(max(0.0, math.log(diameter / blur) / -math.log(scaling)))
    epsilons = jnp.asarray([(diameter * scaling**i) ** 2 for i in range(steps)] + [blur**2], x.dtype)
    # the cost of every pair of sets, and the logarithm of the weights over which its soft minimum runs
    pairs = [(x, y, logs[1]), (y, x, logs[0]), (x, x, logs[0]), (y, y, logs[1])]
    # each set moves by its own potential alone: through both it would move twice as far
    costs = [_cost(a, jax.lax.stop_gradient(b)) for a, b, _ in pairs]
    other = (1, 0, 2, 3)

    def soft_minimum(epsilon, potentials, costs):
        return tuple(
            -epsilon * jax.nn.logsumexp(log[None] + (potentials[other[i]][None] - cost) / epsilon, axis=1)
            for i, ((_, _, log), cost) in enumerate(zip(pairs, costs, strict=True))
        )

    def step(potentials, epsilon):
        new = soft_minimum(epsilon, potentials, fixed)
        return tuple(0.5 * (old + each) for old, each in zip(potentials, new, strict=True)), None

    fixed = jax.lax.stop_gradient(costs)
    potentials = soft_minimum(epsilons[0], tuple(jnp.zeros(cost.shape[0], x.dtype) for cost in costs), fixed)
    potentials, _ = jax.lax.scan(step, potentials, epsilons)
    f_xy, f_yx, f_xx, f_yy = soft_minimum(epsilons[-1], jax.lax.stop_gradient(potentials), costs)
    return jnp.sum(jnp.exp(logs[0]) * (f_xy - f_xx)) + jnp.sum(jnp.exp(logs[1]) * (f_yx - f_yy))


def _cost(x: jax.Array, y: jax.Array) -> jax.Array:
    """|x - y|^2 / 2 of all pairs, `[N, M]`."""
    return jnp.maximum(0.5 * squared_distances(x, y), 0)
