"""Losses of scores and of distances to a centre."""

import jax
import jax.numpy as jnp

__all__ = ["deviation", "soft_boundary", "svdd", "truncated_l1"]


def truncated_l1(score: jax.Array, label: jax.Array, th: float = 0.5) -> jax.Array:
    """Truncated L1 hinge: max(0, th - D) of normal features, max(0, th + D) of anomalous ones (SimpleNet, 2023, eq. 7).

    Args:
      score: `[B, ...]`, D: positive for normal features.
      label: `[B, ...]`, 0 normal, 1 anomalous.
      th: both truncation points th+ and -th-.
    """
    values = jnp.maximum(0, th - jnp.where(label == 0, score, -score))
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def deviation(score: jax.Array, label: jax.Array, reference: jax.Array, margin: float = 5.0) -> jax.Array:
    """Deviation loss (1 - y) |dev| + y max(0, a - dev), dev = (phi(x) - mu) / sigma (DevNet, Pang et al., 2019, eq. 6-7).

    Args:
      score: `[B]`, phi(x).
      label: `[B]`, y: 0 normal, 1 anomalous.
      reference: `[l]` draws from the prior N(0, 1); mu and sigma (with l - 1 in the denominator) are theirs.
      margin: a.
    """
    dev = (score - jnp.mean(reference)) / jnp.std(reference, ddof=1)
    return jnp.where(label == 1, jnp.maximum(0, margin - dev), jnp.abs(dev))


def svdd(x: jax.Array, centre: jax.Array) -> jax.Array:
    """|x - c|^2 (Deep SVDD, Ruff et al., ICML 2018, eq. 4, without the decay of weights), the mean over positions.

    Args:
      x: `[B, ..., D]` embeddings.
      centre: `[D]`, c.
    """
    distance = jnp.sum((x - centre.reshape(*(1,) * (x.ndim - 1), -1)) ** 2, axis=-1)
    return jnp.mean(distance, axis=tuple(range(1, distance.ndim)))


def soft_boundary(distance: jax.Array, radius: jax.Array, nu: float = 0.1) -> jax.Array:
    """R^2 + max(0, d - R^2) / nu (soft-boundary Deep SVDD, Ruff et al., ICML 2018, eq. 3, without the decay of weights).

    Args:
      distance: `[B]` d, squared distances to the centre.
      radius: R, a scalar.
      nu: in (0, 1], bounds the fraction of images outside.
    """
    return radius**2 + jnp.maximum(0, distance - radius**2) / nu
