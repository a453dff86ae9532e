"""Negative log-likelihoods and their bounds."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

__all__ = ["kl_normal", "negative_elbo", "normal_nll"]


def normal_nll(z: Sequence[jax.Array], log_det: Sequence[jax.Array]) -> jax.Array:
    """1/2 |z|^2 - log |det dz/dx|, summed over scales: the NLL of a flow up to a constant (Dinh et al., ICLR 2017, eq. 3).

    Args:
      z: `[B, ...]` per scale.
      log_det: `[B]` per scale, or one of all scales together.
    """
    return sum(0.5 * jnp.sum(each**2, axis=tuple(range(1, each.ndim))) for each in z) - sum(log_det)


def kl_normal(mean: jax.Array, log_variance: jax.Array) -> jax.Array:
    """KL(N(m, s^2) | N(0, 1)) = 1/2 sum of m^2 + s^2 - log s^2 - 1 (Kingma & Welling, ICLR 2014, appendix B).

    Args:
      mean: `[B, ...]`, m.
      log_variance: of the same shape, log s^2.
    """
    return 0.5 * jnp.sum(mean**2 + jnp.exp(log_variance) - log_variance - 1, axis=tuple(range(1, mean.ndim)))


def negative_elbo(x: jax.Array, restored: jax.Array, mean: jax.Array, log_variance: jax.Array, beta: float = 1.0) -> jax.Array:
    """1/2 |x - y|^2 + beta KL: the evidence lower bound (Kingma & Welling, ICLR 2014, eq. 3) with its sign changed.

    The decoder's distribution is N(y, 1), and its constant is left out; beta is that of Higgins et al., ICLR 2017.

    Args:
      x, restored: `[B, ...]`, the image and the decoder's mean y of one draw.
      mean, log_variance: see `kl_normal`.
      beta: see above.
    """
    return 0.5 * jnp.sum((x - restored) ** 2, axis=tuple(range(1, x.ndim))) + beta * kl_normal(mean, log_variance)
