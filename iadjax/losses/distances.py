"""Distances of images and of features."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

__all__ = ["cosine_distance", "edge_mse", "hard_mean", "mse", "normalized_l2", "pseudo_huber"]


def mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean of (x - y)^2 over everything but the first axis."""
    return jnp.mean(optax.losses.squared_error(x, y), axis=tuple(range(1, x.ndim)))


def edge_mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """1/2 mean e^2 + 1/4 mean (difference of e along rows)^2 + 1/4 along columns, e = x - y (PNI, Bae et al., ICCV 2023).

    The arrays are `[B, H, W]`. The differences count as 0 at the last row and column.
    """
    error = x - y
    mean = lambda e: jnp.sum(e**2, axis=(1, 2)) / math.prod(error.shape[1:])  # noqa: E731
    return mean(error) / 2 + (mean(jnp.diff(error, axis=1)) + mean(jnp.diff(error, axis=2))) / 4


def cosine_distance(x: jax.Array, y: jax.Array, flatten: bool = True, eps: float = 1e-8) -> jax.Array:
    """1 - cos(x, y): of an image's flattened features, or the mean over its positions (RD4AD, Deng & Li, CVPR 2022, eq. 1-2).

    RD4AD has the mean over positions in eq. 1-2. Its code, and so the published figures, take one
    cosine of the flattened features.

    Args:
      x, y: `[B, h, w, C]`.
      flatten: which of the two.
      eps: floor of each norm.
    """
    # three sums take a third of the time of Optax's form with gradients, which writes both unit vectors
    dot = lambda a, b: jnp.sum(a * b, axis=(1, 2, 3) if flatten else -1)  # noqa: E731
    x_norm, y_norm = (jnp.sqrt(jnp.maximum(dot(each, each), eps**2)) for each in (x, y))
    distance = 1 - dot(x, y) / (x_norm * y_norm)
    return jnp.mean(distance, axis=tuple(range(1, distance.ndim)))


def normalized_l2(x: jax.Array, y: jax.Array, eps: float = 1e-12) -> jax.Array:
    """Mean over positions of 1/2 |x / |x| - y / |y||^2 (STFPM, Wang et al., BMVC 2021, eq. 1-2), norms over channels.

    Args:
      x, y: `[B, h, w, C]`.
      eps: floor of each norm.
    """
    x, y = (each / jnp.maximum(optax.safe_norm(each, eps, axis=-1, keepdims=True), eps) for each in (x, y))
    return 0.5 * jnp.mean(jnp.sum((x - y) ** 2, axis=-1), axis=(1, 2))


def pseudo_huber(x: jax.Array) -> jax.Array:
    """sqrt(x^2 + 1) - 1 of each number: x^2 / 2 near 0 and |x| far from it (FCDD, Liznerski et al., ICLR 2021, section 3)."""
    # the difference of two roots would cancel near 0
    return x**2 / (jnp.sqrt(x**2 + 1) + 1)


def hard_mean(distance: jax.Array, quantile: float) -> jax.Array:
    """Mean of the elements that are at least the quantile of their image (EfficientAD, Batzner et al., WACV 2024, section 3.2).

    Args:
      distance: `[B, ...]`.
      quantile: in [0, 1], linear between order statistics.
    """
    flat = distance.reshape(distance.shape[0], -1)
    number = flat.shape[1]
    # those elements are the last n - ceil(q (n - 1)); the smallest of them is the threshold, and equal ones count too
    count = number - int(np.ceil(quantile * (number - 1)))
    threshold = jax.lax.top_k(jax.lax.stop_gradient(flat), count)[0][:, -1:]
    hard = flat >= threshold
    return jnp.sum(jnp.where(hard, flat, 0), axis=1) / jnp.sum(hard, axis=1).astype(flat.dtype)
