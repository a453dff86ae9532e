"""Covariances of few samples, drawn to multiples of the identity."""

import numpy as np

__all__ = ["ledoit_wolf"]


def ledoit_wolf(centred: np.ndarray) -> np.ndarray:
    """The covariance `[D, D]` of centred vectors `[N, D]`, drawn to its mean variance (Ledoit & Wolf, 2004).

    (1 - s) S + s m I: S has N in its denominator, m is its mean variance, and s has the least expected error.
    """
    number, depth = centred.shape
    sample = centred.T @ centred / number
    mean = np.trace(sample) / depth
    # |S - m I|^2, and the error of S by the spread of x x^T about it
    distance = np.sum(sample**2) - depth * mean**2
    spread = (np.sum(np.sum(centred**2, axis=1) ** 2) / number - np.sum(sample**2)) / number
    shrinkage = min(max(spread / distance, 0.0), 1.0) if distance > 0 else 1.0
    # features that never vary would leave no factor
    floor = 1e-12 + 1e-9 * mean
    return (1 - shrinkage) * sample + (shrinkage * mean + floor) * np.eye(depth)
