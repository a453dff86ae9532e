"""Anomalous features, made by adding noise to normal ones, on the device, inside a detector's `update`."""

import jax
import jax.numpy as jnp

from iadjax.parallel.axis import own_rows

__all__ = ["gaussian_noise", "jitter"]


def gaussian_noise(key: jax.Array, features: jax.Array, std: float) -> jax.Array:
    """`features [..., C]` + epsilon, every element of epsilon from N(0, std^2) (SimpleNet, Liu et al., CVPR 2023, eq. 5)."""
    return features + std * _normal(key, features)


def jitter(key: jax.Array, features: jax.Array, scale: float, probability: float = 1.0) -> jax.Array:
    """Adds noise in proportion to the norm of each token (UniAD, You et al., NeurIPS 2022, eq. 4).

    Args:
      key: draws the noise, and whether the batch gets it.
      features: `[..., C]`, floats.
      scale: alpha; epsilon is drawn from N(0, (alpha |f| / C)^2) for the token f.
      probability: that the batch gets the noise; all of its rows or none.

    Returns:
      An array of the same shape.
    """
    use_key, noise_key = jax.random.split(key)
    sigma = scale * jnp.linalg.norm(features, axis=-1, keepdims=True) / features.shape[-1]
    noised = features + sigma * _normal(noise_key, features)
    return jnp.where(jax.random.uniform(use_key) <= probability, noised, features)


def _normal(key: jax.Array, like: jax.Array) -> jax.Array:
    """Standard normal noise `[B, ...]`, the same however the rows of a batch are split."""
    return own_rows(lambda rows: jax.random.normal(key, (rows, *like.shape[1:])), like.shape[0])
