"""A detector for tests of the driver: two phases, several epochs, random numbers, no backbone features."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from iadjax.detector import Detector, Phase, Prediction
from iadjax.parallel.axis import all_rows, all_sum, own_rows


class ToyState(NamedTuple):
    mean: jax.Array
    scale: jax.Array
    history: jax.Array


def toy(backbone, *, rate: float = 0.1, epochs: int = 3) -> Detector:
    """A moving average of noisy images, then the largest error on held-out ones, then a change of shape."""
    del backbone

    def init(key, frozen, spec):
        return ToyState(jax.random.uniform(key, spec.image_shape), jnp.zeros(()), jnp.zeros((4,)))

    def distance(mean, image):
        return jnp.abs(image - mean[None]).mean(-1)

    def train(key, state, frozen, batch):
        rows, *shape = batch.image.shape
        noise = 0.1 * own_rows(lambda number: jax.random.normal(key, (number, *shape)), rows)
        weight = batch.valid[:, None, None, None].astype(jnp.float32)
        mean = all_sum(jnp.sum((batch.image + noise) * weight, 0)) / all_sum(jnp.sum(weight))
        mean = (1 - rate) * state.mean + rate * mean
        history = jnp.roll(state.history, 1).at[0].set(mean.mean())
        return ToyState(mean, state.scale, history), {"mean": mean.mean()}

    def calibrate(key, state, frozen, batch):
        worst = all_rows(jnp.where(batch.valid, distance(state.mean, batch.image).max((1, 2)), 0)).max()
        scale = jnp.maximum(state.scale, worst)
        return ToyState(state.mean, scale, state.history), {"scale": scale}

    def shorten(key, state, frozen):
        return ToyState(state.mean, state.scale, state.history[:2] + jax.random.uniform(key, (2,)))

    def predict(state, frozen, batch):
        maps = distance(state.mean, batch.image) / state.scale
        return Prediction(maps.max((1, 2)), maps)

    phases = (Phase("train", train, shorten, epochs), Phase("calibrate", calibrate, split="validation"))
    return Detector(init, lambda spec: phases, predict)
