"""Covariances of few samples, drawn to multiples of the identity."""

import numpy as np

__all__ = ["drawn_to_mean", "ledoit_wolf"]


def ledoit_wolf(centred: np.ndarray) -> np.ndarray:
    """The covariance `[D, D]` of centred vectors `[N, D]`, drawn to its mean variance (Ledoit & Wolf, 2004)."""
    number = len(centred)
    return drawn_to_mean(centred.T @ centred / number, number, np.sum(np.sum(centred**2, axis=1) ** 2))


def drawn_to_mean(sample: np.ndarray, number: float, fourth: float, rounding: float = 1e-9) -> np.ndarray:
    """(1 - s) S + s m I: m is the mean variance of S, and s has the least expected error (Ledoit & Wolf, 2004).

    Args:
      sample: S `[D, D]`, with N in its denominator.
      number: N.
      fourth: the sum of |x|^4 over the N centred vectors.
      rounding: relative error of S; so much of m is added, because features that never vary would leave no factor.
    """
    depth = len(sample)
    mean = np.trace(sample) / depth
    # |S - m I|^2, and the error of S by the spread of x x^T about it
    distance = np.sum(sample**2) - depth * mean**2
    spread = (fourth / number - np.sum(sample**2)) / number
    shrinkage = min(max(spread / distance, 0.0), 1.0) if distance > 0 else 1.0
    floor = 1e-12 + rounding * mean
    return (1 - shrinkage) * sample + (shrinkage * mean + floor) * np.eye(depth)
