"""Builders for families of detectors, so that a detector's own file holds only its mathematics."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from iadjax.detector import Detector, Phase

__all__ = ["Bank", "memory_bank"]


class Bank(NamedTuple):
    """State of a memory-bank detector.

    Attributes:
      features: `[N, P, D]` float32 while it fills (N images of P patches), `[M, D]` once it is reduced.
      count: int32 scalar; images in the bank so far.
    """

    features: jax.Array
    count: jax.Array


def memory_bank(embed: Callable, reduce: Callable, predict: Callable) -> Detector:
    """A detector that remembers features of normal images.

    One pass over the training images writes their features into a buffer allocated in `init`; `finalize` reduces it.

    Args:
      embed: `(frozen, image [B, H, W, 3]) -> [B, h, w, D]`, the features to remember.
      reduce: `(key, features [N, D]) -> [M, D]`, once, outside jit (a coreset).
      predict: `(bank [M, D], frozen, image) -> Prediction`.
    """

    def init(key, frozen, spec):
        del key
        image = jax.ShapeDtypeStruct((1, *spec.image_shape), jnp.float32)
        _, height, width, depth = jax.eval_shape(embed, frozen, image).shape
        return Bank(jnp.zeros((spec.num_images, height * width, depth), jnp.float32), jnp.zeros((), jnp.int32))

    def update(key, state, frozen, batch):
        del key
        features = embed(frozen, batch.image)
        features = features.reshape(features.shape[0], -1, features.shape[-1])
        # padded rows get a slot past the end, which the scatter drops
        slots = jnp.where(batch.valid, state.count + jnp.cumsum(batch.valid) - 1, state.features.shape[0])
        count = state.count + jnp.sum(batch.valid, dtype=jnp.int32)
        return Bank(state.features.at[slots].set(features, mode="drop"), count), {"bank_images": count}

    def finalize(key, state, frozen):
        del frozen
        features = state.features[: int(state.count)]
        return Bank(reduce(key, features.reshape(-1, features.shape[-1])), state.count)

    return Detector(
        init=init,
        phases=(Phase("fit", update, finalize),),
        predict=lambda state, frozen, image: predict(state.features, frozen, image),
    )
