"""Losses of masks."""

import jax
import jax.numpy as jnp

__all__ = ["dice", "focal", "focal_of_probabilities"]


def focal(logits: jax.Array, mask: jax.Array, gamma: float = 2.0, smoothing: float = 1e-5) -> jax.Array:
    """Mean over pixels of -(1 - p)^gamma log p, p the softmax probability of the pixel's class (Lin et al., ICCV 2017, eq. 4).

    Without the class weight, as DRAEM uses it.

    Args:
      logits: `[B, H, W, 2]`, normal and anomalous.
      mask: `[B, H, W]` in {0, 1}.
      gamma: focus on hard pixels.
      smoothing: of the one-hot target t, clipped to [smoothing, 1 - smoothing]; p = sum of t softmax(logits) + smoothing.
    """
    return focal_of_probabilities(jax.nn.softmax(logits), mask, gamma, smoothing)


def focal_of_probabilities(x: jax.Array, mask: jax.Array, gamma: float = 2.0, smoothing: float = 1e-5) -> jax.Array:
    """`focal` of probabilities instead of logits (Lin et al., ICCV 2017, eq. 4), as AnomalyCLIP has it after enlarging them.

    Args:
      x: `[B, H, W, 2]` probabilities, normal and anomalous.
      mask, gamma, smoothing: as those of `focal`.
    """
    target = jnp.clip(jax.nn.one_hot(mask, x.shape[-1], dtype=x.dtype), smoothing, 1 - smoothing)
    p = jnp.sum(target * x, axis=-1) + smoothing
    return jnp.mean(-((1 - p) ** gamma) * jnp.log(p), axis=(1, 2))


def dice(x: jax.Array, target: jax.Array, smooth: float = 1.0) -> jax.Array:
    """Dice loss 1 - (2 sum x t + s) / (sum x + sum t + s) of each image (Milletari et al., 3DV 2016, V-Net).

    Args:
      x: `[B, H, W]` probabilities.
      target: `[B, H, W]` t in {0, 1}, any dtype.
      smooth: s.
    """
    target = target.astype(x.dtype)
    total = lambda y: jnp.sum(y, axis=(1, 2))  # noqa: E731
    return 1 - (2 * total(x * target) + smooth) / (total(x) + total(target) + smooth)
