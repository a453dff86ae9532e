"""Detectors of a few lines, each for one thing that the contract can say."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, gradient_phase, init_trained, train_step
from iadjax.detectors.families.memory_bank import memory_bank
from iadjax.parallel.axis import all_sum

NAMES = ("image_only", "adversarial", "sampler", "pairs", "warm", "prepared", "weighted", "against_itself")


def _colour(frozen, image):
    """The mean colour of an image, `[B, 3]`."""
    del frozen
    return image.mean(axis=(1, 2))


def _mean_update(key, state, frozen, batch):
    """The running mean of the features: state is (count, mean)."""
    count = state[0] + all_sum(batch.valid.sum()).astype(jnp.float32)
    total = all_sum(jnp.sum(jnp.where(batch.valid[:, None], batch.features - state[1][None], 0), axis=0))
    return (count, state[1] + total / count), {"images": count}


def _start(key, frozen, spec):
    return jnp.zeros(()), jnp.zeros(spec.features.shape[1:])


def image_only() -> Detector:
    """Distance to the mean colour: a score and no map; sites merge by their weights."""

    def predict(state, frozen, batch):
        return Prediction(jnp.linalg.norm(batch.features - state[1][None], axis=-1))

    def merge(states, weights):
        return sum(state[0] for state in states), sum(float(w) * state[1] for w, state in zip(weights, states, strict=True))

    return Detector(_start, lambda spec: (Phase("fit", _mean_update),), predict, _colour, merge=merge)


class Rivals(NamedTuple):
    """Two networks and their optimisers in one state."""

    generator: Trained
    critic: Trained


def adversarial(*, epochs: int = 3) -> Detector:
    """A generator that restores grey pixels and a critic that tells them from real ones: two steps in one update."""
    generator, critic = nn.Conv(3, (1, 1)), nn.Conv(1, (1, 1))
    first, second = optax.adam(1e-2), optax.adam(1e-3)

    def init(key, frozen, spec):
        keys, image = jax.random.split(key), jnp.zeros((1, *spec.image_shape))
        return Rivals(init_trained(generator.init(keys[0], image), first), init_trained(critic.init(keys[1], image), second))

    def grey(image):
        return jnp.broadcast_to(image.mean(-1, keepdims=True), image.shape)

    def judged(variables, image):
        return critic.apply(variables, image).mean(axis=(1, 2, 3))

    def update(key, state, frozen, batch):
        def of_generator(variables):
            made = generator.apply(variables, grey(batch.image))
            values = losses.mse(made, batch.image) - judged(state.critic.variables, made)
            return losses.mean(values, batch.valid), ({}, {})

        def of_critic(variables):
            made = generator.apply(state.generator.variables, grey(batch.image))
            return losses.mean(judged(variables, made) - judged(variables, batch.image), batch.valid), ({}, {})

        made, info = train_step(state.generator, of_generator, first)
        judge, other = train_step(state.critic, of_critic, second)
        return Rivals(made, judge), {"generator": info["loss"], "critic": other["loss"]}

    def predict(state, frozen, batch):
        maps = jnp.abs(generator.apply(state.generator.variables, grey(batch.image)) - batch.image).mean(-1)
        return Prediction(maps.max(axis=(1, 2)), maps)

    return Detector(init, lambda spec: (Phase("train", update, epochs=epochs),), predict)


class Noised(NamedTuple):
    """The mean image, and the key of the noise that prediction begins with."""

    key: jax.Array
    count: jax.Array
    mean: jax.Array


def sampler(*, steps: int = 5) -> Detector:
    """Noised images walk towards the mean image in a loop of `predict`; the key is typed and part of the state."""

    def init(key, frozen, spec):
        return Noised(jax.random.fold_in(key, 1), jnp.zeros(()), jnp.zeros(spec.image_shape))

    def update(key, state, frozen, batch):
        count = state.count + all_sum(batch.valid.sum()).astype(jnp.float32)
        total = all_sum(jnp.sum(jnp.where(batch.valid[:, None, None, None], batch.image - state.mean[None], 0), axis=0))
        return Noised(state.key, count, state.mean + total / count), {"images": count}

    def predict(state, frozen, batch):
        # one noise image for all rows
        noised = batch.image + 0.1 * jax.random.normal(state.key, state.mean.shape)[None]
        restored = jax.lax.fori_loop(0, steps, lambda i, x: x + 0.5 * (state.mean[None] - x), noised)
        maps = jnp.abs(restored - batch.image).mean(-1)
        return Prediction(maps.max(axis=(1, 2)), maps)

    return Detector(init, lambda spec: (Phase("fit", update),), predict)


def pairs() -> Detector:
    """Every batch is of one category, and `augment` draws a partner of the same category for each image."""

    def init(key, frozen, spec):
        return jnp.zeros((len(spec.categories), 3)), jnp.zeros(len(spec.categories)), jnp.zeros((), bool)

    def update(key, state, frozen, batch):
        category = batch.category[0]
        mixed = jnp.any(batch.valid & (batch.category != category))
        colours = 0.5 * (batch.image + batch.extra["partner"]).mean(axis=(1, 2))
        total = jnp.sum(jnp.where(batch.valid[:, None], colours, 0), axis=0)
        sums = state[0].at[category].add(total)
        counts = state[1].at[category].add(batch.valid.sum().astype(jnp.float32))
        return (sums, counts, state[2] | mixed), {}

    def predict(state, frozen, batch):
        means = state[0] / state[1][:, None]
        return Prediction(jnp.linalg.norm(batch.image.mean(axis=(1, 2)) - means[batch.category], axis=-1))

    def augment(rng, image, draw):
        return {"partner": draw()}

    return Detector(init, lambda spec: (Phase("fit", update, group="category", augment=augment),), predict)


def warm(*, epochs: int = 2) -> Detector:
    """A phase that only a fit from scratch runs, and one that only a carried fit runs."""
    network, optimizer = nn.Dense(3), optax.sgd(0.1)

    def loss(key, variables, frozen, batch):
        values = jnp.sum((network.apply(variables, batch.features) - batch.features) ** 2, axis=-1)
        return losses.mean(values, batch.valid), ({}, {})

    def predict(state, frozen, batch):
        return Prediction(jnp.linalg.norm(network.apply(state.variables, batch.features) - batch.features, axis=-1))

    return Detector(
        init=lambda key, frozen, spec: init_trained(network.init(key, jnp.zeros((1, 3))), optimizer),
        phases=lambda spec: (
            gradient_phase(loss, optimizer, "pretrain", epochs=epochs, when="fresh"),
            gradient_phase(loss, optimizer, "adapt", epochs=epochs, when="carried"),
        ),
        predict=predict,
        embed=_colour,
        warm_start=lambda fresh, old: Trained(jax.tree.map(jnp.array, old.variables), fresh.optimizer),
    )


def prepared() -> Detector:
    """The host counts bright pixels of each image; the device compares the count with the mean of the normal ones."""

    def prepare(image: np.ndarray, extra: Any) -> dict[str, np.ndarray]:
        return {"bright": np.float32((image.mean(-1) > 0.5).mean())}

    def update(key, state, frozen, batch):
        count = state[0] + batch.valid.sum().astype(jnp.float32)
        return (count, state[1] + jnp.sum(jnp.where(batch.valid, batch.extra["bright"], 0))), {}

    def predict(state, frozen, batch):
        return Prediction(jnp.abs(batch.extra["bright"] - state[1] / state[0]))

    start = lambda key, frozen, spec: (jnp.zeros(()), jnp.zeros(()))  # noqa: E731
    return Detector(start, lambda spec: (Phase("fit", update),), predict, prepare=prepare)


def _pixels(frozen, image):
    del frozen
    return image[:, ::4, ::4]


def weighted() -> Detector:
    """A bank of colours, every second row of which is kept, with a weight that depends on where it comes from."""

    def choose(key, bank):
        index = np.arange(0, int(bank.rows), 2, dtype=np.int32)
        return index, 1.0 + np.asarray(bank.origin)[index, 1] % 3

    def predict(memory, frozen, batch):
        rows, height, width, depth = batch.features.shape
        distance, nearest = ops.nearest_neighbors(batch.features.reshape(-1, depth), memory.features, 1)
        weight = memory.weights[nearest]
        distance = (distance * weight).reshape(rows, height, width)
        return Prediction(distance.max(axis=(1, 2)), ops.anomaly_map(distance, batch.image.shape[1:3]))

    return memory_bank(lambda frozen, batch: batch.features, choose, predict, embed=_pixels)


def against_itself() -> Detector:
    """Each image of a set is compared with the others of the set, and left out of its own bank by its index."""

    def choose(key, bank):
        return np.arange(int(bank.rows), dtype=np.int32), None

    def predict(memory, frozen, batch):
        rows, height, width, depth = batch.features.shape
        distance = jnp.linalg.norm(batch.features.reshape(rows, -1, 1, depth) - memory.features[None, None], axis=-1)
        own = memory.origin[None, :, 0] == batch.index[:, None]
        distance = jnp.where(own[:, None], jnp.inf, distance).min(axis=-1).reshape(rows, height, width)
        return Prediction(distance.max(axis=(1, 2)), ops.anomaly_map(distance, batch.image.shape[1:3]))

    return memory_bank(lambda frozen, batch: batch.features, choose, predict, embed=_pixels)
