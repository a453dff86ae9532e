"""Gaussian detectors: streaming moments of the features at each position."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from iadjax.detector import Detector, Phase
from iadjax.parallel.axis import AXIS

__all__ = ["Moments", "statistics"]


class Moments(NamedTuple):
    """State of a Gaussian detector while it sees images: streaming moments at every position (Chan et al., 1979).

    Attributes:
      constants: what was drawn at the beginning (a channel subset).
      count: float32 scalar; images seen.
      mean: `[P, D]`.
      scatter: `[P, D, D]`, the sum of (x - mean)(x - mean)^T; `finalize` replaces it by what prediction needs.
    """

    constants: Any
    count: jax.Array
    mean: jax.Array
    scatter: jax.Array


def statistics(draw: Callable, embed: Callable, factorize: Callable, predict: Callable) -> Detector:
    """A detector that fits a Gaussian to the features at each position, in one pass and without keeping them.

    Args:
      draw: `(key, frozen, image_shape) -> constants`, random numbers that stay with the model; may return ().
      embed: `(constants, frozen, image [B, H, W, 3]) -> [B, h, w, D]`.
      factorize: `(covariance [P, D, D]) -> [P, D, D]`, once, outside jit.
      predict: `(moments, frozen, image) -> Prediction`, with the factor in `moments.scatter`.
    """

    def init(key, frozen, spec):
        constants = draw(key, frozen, spec.image_shape)
        image = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
        _, height, width, depth = jax.eval_shape(embed, constants, frozen, image).shape
        places = height * width
        return Moments(constants, jnp.zeros(()), jnp.zeros((places, depth)), jnp.zeros((places, depth, depth)))

    def update(key, state, frozen, batch):
        del key
        x = embed(state.constants, frozen, batch.image)
        x = x.reshape(x.shape[0], -1, x.shape[-1])
        weight = batch.valid.astype(x.dtype)
        number = jnp.sum(weight)
        count = state.count + number
        mean = jnp.einsum("b,bpd->pd", weight, x, precision="highest") / number
        delta, centred = mean - state.mean, weight[:, None, None] * (x - mean)
        # one product for the batch's own scatter and for the step of its mean
        step = delta * jnp.sqrt(state.count * number / count)
        rows = jnp.concatenate([centred, step[None]])
        scatter = state.scatter + jnp.einsum("bpi,bpj->pij", rows, rows, precision="highest")
        return Moments(state.constants, count, state.mean + delta * number / count, scatter), {"images": count}

    def finalize(key, state, frozen):
        del key, frozen
        covariance = state.scatter / jnp.maximum(state.count - 1, 1)
        return state._replace(scatter=factorize(covariance))

    def partition(state):
        # by positions: every one has its own Gaussian, and an all-reduce of [P, D, D] in each step would be gigabytes
        whole, places = PartitionSpec(), PartitionSpec(AXIS)
        return Moments(whole, whole, places, places)

    return Detector(init=init, phases=(Phase("fit", update, finalize),), predict=predict, partition=partition)
