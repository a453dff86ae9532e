"""Gaussian detectors: streaming moments of the features at each position."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from iadjax.detector import DataSpec, Detector, Phase, abstract_batch
from iadjax.errors import UserError
from iadjax.parallel.axis import AXIS, all_rows, all_sum

__all__ = [
    "Gaussian",
    "Moments",
    "add_moments",
    "draw_channels",
    "fitted_gaussian",
    "gaussian",
    "init_moments",
    "mahalanobis",
    "moments_phase",
    "whitening",
]


class Moments(NamedTuple):
    """Streaming moments at every position (Chan et al., 1979): the state while images are seen.

    Attributes:
      constants: what was drawn at the beginning (a channel subset).
      count: float32 scalar; images seen.
      mean: `[P, D]`, of the P positions.
      scatter: `[P, D, D]`, the sum of (x - mean)(x - mean)^T.
    """

    constants: Any
    count: jax.Array
    mean: jax.Array
    scatter: jax.Array


class Gaussian(NamedTuple):
    """One Gaussian for each position: the state that predicts.

    Attributes:
      constants: those of `Moments`.
      count: float32 scalar; images it was fitted on.
      mean: `[P, D]`.
      factor: `[P, D, D]`, what `factorize` made of the covariances.
    """

    constants: Any
    count: jax.Array
    mean: jax.Array
    factor: jax.Array


def draw_channels(key: jax.Array, spec: DataSpec, number: int, layers: Sequence[str]) -> jax.Array:
    """Indices, ascending, of so many of the channels of all levels together, drawn once; 0: all of them.

    Raises:
      UserError: more than there are.
    """
    total = sum(level.shape[-1] for level in spec.features)
    if number > total:
        raise UserError(f"detector.num_channels={number} is more than the {total} channels of {', '.join(layers)}")
    return jnp.sort(jax.random.choice(key, total, (number or total,), replace=False))


def init_moments(constants: Any, positions: int, depth: int) -> Moments:
    """Moments of no image."""
    return Moments(constants, jnp.zeros(()), jnp.zeros((positions, depth)), jnp.zeros((positions, depth, depth)))


def add_moments(moments: Moments, x: jax.Array, valid: jax.Array) -> Moments:
    """The moments after a batch `[B, ..., D]`; rows where `valid [B]` is true count."""
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    weight = valid.astype(x.dtype)
    number = all_sum(jnp.sum(weight))
    # a batch, or all so far, may have no row that counts
    count = moments.count + number
    mean = all_sum(jnp.einsum("b,bpd->pd", weight, x, precision="highest")) / jnp.maximum(number, 1)
    delta, centred = mean - moments.mean, weight[:, None, None] * (x - mean[None])
    # one matrix product for the scatter within the batch and for the step of the mean
    step = delta * jnp.sqrt(moments.count * number / jnp.maximum(count, 1))
    rows = jnp.concatenate([all_rows(centred), step[None]])
    scatter = moments.scatter + jnp.einsum("bpi,bpj->pij", rows, rows, precision="highest")
    return Moments(moments.constants, count, moments.mean + delta * number / jnp.maximum(count, 1), scatter)


def whitening(covariance: jax.Array, epsilon: float) -> jax.Array:
    """W = L^-1 of `[P, D, D]`, where L L^T is the covariance with `epsilon` added to its diagonal."""
    depth = covariance.shape[-1]
    lower = jnp.linalg.cholesky(covariance + epsilon * jnp.eye(depth)[None])
    eye = jnp.broadcast_to(jnp.eye(depth), covariance.shape)
    return jax.lax.linalg.triangular_solve(lower, eye, left_side=True, lower=True)


def mahalanobis(fitted: Gaussian, x: jax.Array) -> jax.Array:
    """|W (x - mu)| at every position: `[B, h, w, D]` to `[B, h, w]`; the factor of `fitted` is W, see `whitening`."""
    rows, height, width, depth = x.shape
    delta = x.reshape(rows, -1, depth) - fitted.mean[None]
    whitened = jnp.einsum("pij,bpj->bpi", fitted.factor, delta, precision="highest")
    return jnp.linalg.norm(whitened, axis=-1).reshape(rows, height, width)


def fitted_gaussian(moments: Moments, factorize: Callable) -> Gaussian:
    """The Gaussians of moments; `factorize` of their covariances, which have n - 1 in the denominator."""
    covariance = moments.scatter / jnp.maximum(moments.count - 1, 1)
    return Gaussian(moments.constants, moments.count, moments.mean, factorize(covariance))


def moments_phase(describe: Callable, factorize: Callable, name: str = "fit", **fields) -> Phase:
    """The phase of a state that is `Moments` and becomes `Gaussian`.

    Args:
      describe: `(constants, batch) -> [B, h, w, D]`.
      factorize: `(covariance [P, D, D]) -> [P, D, D]`, once, outside jit.
      name: of the phase.
      **fields: further fields of the `Phase`.
    """

    def update(key, state, frozen, batch):
        del key, frozen
        state = add_moments(state, describe(state.constants, batch), batch.valid)
        return state, {"images": state.count}

    def finalize(key, state, frozen):
        del key, frozen
        return fitted_gaussian(state, factorize)

    return Phase(name, update, finalize, finalized=lambda state: Gaussian(*state), **fields)


def gaussian(draw: Callable, embed: Callable, describe: Callable, factorize: Callable, predict: Callable) -> Detector:
    """A detector that fits a Gaussian to the features at each position, in one pass, without keeping the features.

    Args:
      draw: `(key, spec) -> constants`, random numbers that stay with the model; may return ().
      embed: see `Detector`.
      describe: `(constants, batch) -> [B, h, w, D]`, from `batch.features`.
      factorize: `(covariance [P, D, D]) -> [P, D, D]`, once, outside jit.
      predict: `(gaussian, frozen, batch) -> Prediction`.
    """

    def init(key, frozen, spec):
        del frozen
        constants = draw(key, spec)
        _, height, width, depth = jax.eval_shape(describe, constants, abstract_batch(spec)).shape
        return init_moments(constants, height * width, depth)

    def partition(state):
        # split by positions: otherwise each step would sum [P, D, D] over the devices, which is gigabytes
        whole, positions = PartitionSpec(), PartitionSpec(AXIS)
        return type(state)(whole, whole, positions, positions)

    return Detector(
        init=init,
        phases=lambda spec: (moments_phase(describe, factorize),),
        predict=predict,
        embed=embed,
        partition=partition,
    )
