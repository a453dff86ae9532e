"""CFLOW-AD: "Real-Time Unsupervised Anomaly Detection with Localization via Conditional Normalizing Flows"
(Gudovskiy et al., WACV 2022, arXiv 2107.12571).

At each level of a frozen network, one normalising flow gives the likelihood of the feature vector of a position. The position
is its condition. Positions that are unlikely are anomalous.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_multiple, check_options
from iadjax.nn.flow import AllInOneBlock, chain, dense, position_code
from iadjax.parallel.axis import all_rows, all_sum, num_replicas, own_rows

__all__ = ["CFlow", "Decoder", "cflow"]


class CFlow(NamedTuple):
    """State.

    Attributes:
      decoders: one trained flow for each level.
      steps: int32 scalar, batches of images that trained them.
      peak: `[levels]`, the largest log-likelihood per dimension of a position of the training images.
    """

    decoders: tuple[Trained, ...]
    steps: jax.Array
    peak: jax.Array


class Decoder(nn.Module):
    """The flow of one level (section 3.3): couplings of feature vectors, conditioned on the position.

    Attributes:
      number: of the level.
      blocks: couplings.
      clamp, soft: of each coupling.
    """

    number: int
    blocks: int
    clamp: float
    soft: bool

    @nn.compact
    def __call__(self, z: jax.Array, c: jax.Array, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """Vectors `[N, D]` with their conditions `[N, K]` to latent vectors, or back, and log |det| of each one, `[N]`."""
        names = [f"decoders_{self.number}_{i}" for i in range(self.blocks)]
        blocks = [AllInOneBlock(dense(), self.clamp, self.soft, name=name) for name in names]
        return chain(blocks, z, c, inverse=inverse)


def cflow(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3", "layer4"),
    coupling_blocks: int = 8,
    condition_dimension: int = 128,
    clamp: float = 1.9,
    soft_permutation: bool = True,
    fiber_batch: int = 256,
    epochs: int = 200,
    meta_epochs: int = 25,
    learning_rate: float = 2e-4,
    final_fraction: float = 1e-3,
    warmup: float = 2.0,
) -> Detector:
    """Builds CFLOW-AD.

    Map: number of levels minus the sum of their likelihoods, where 1 is the likeliest training position of a level.

    The authors subtract the largest log-likelihood of the whole test set, and anomalib that of a batch. Here a last pass over
    the training images finds it, so a score depends on its image alone.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: its levels, each with a flow of its own.
      coupling_blocks: couplings of a flow.
      condition_dimension: channels of the position's code, a multiple of 4.
      clamp: alpha of eq. 2, the largest log scale of a coupling.
      soft_permutation: a fixed rotation between couplings, as in the authors' code; False: a permutation, as in anomalib.
      fiber_batch: positions of one step of the optimiser. All positions of a batch of images are shuffled and cut into such
        parts, for each level alone, and what remains is left out. Padded images come last.
      epochs: passes over the images; the authors' 25 meta epochs have 8 each.
      meta_epochs: parts of the run; the rate is constant within each after the warm-up.
      learning_rate, final_fraction: Adam's, which falls by a cosine to that fraction.
      warmup: meta epochs in which the rate rises linearly, from a tenth to what the cosine has there; 0: none.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", coupling_blocks=coupling_blocks, fiber_batch=fiber_batch, epochs=epochs, meta_epochs=meta_epochs)
    check_options("(0, inf)", clamp=clamp, learning_rate=learning_rate)
    check_options("(0, 1]", final_fraction=final_fraction)
    check_options("[0, inf)", warmup=warmup)
    check_multiple(4, condition_dimension=condition_dimension)
    decoders = [Decoder(number, coupling_blocks, clamp, soft_permutation) for number in range(len(layers))]

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def init(key, frozen, spec):
        del frozen
        keys = jax.random.split(key, len(layers))
        condition = jnp.zeros((1, condition_dimension))
        trained = []
        for decoder, own, level in zip(decoders, keys, spec.features, strict=True):
            variables = decoder.init(own, jnp.zeros((1, level.shape[-1])), condition)
            trained.append(init_trained(variables, optax.scale_by_adam()))
        return CFlow(tuple(trained), jnp.zeros((), jnp.int32), jnp.full((len(layers),), -jnp.inf))

    def log_likelihood(decoder, variables, x, c):
        """log p(z) / D of vectors `[N, D]`, the logarithm of eq. 4 per dimension."""
        u, log_det = decoder.apply(variables, x, c)
        depth = x.shape[-1]
        return (log_det - 0.5 * jnp.sum(u**2, axis=-1)) / depth - 0.5 * np.log(2 * np.pi)

    def rate_at(step, steps):
        """The rate at a batch of images, of so many."""
        cosine = lambda m: final_fraction + (1 - final_fraction) * 0.5 * (1 + jnp.cos(jnp.pi * m / meta_epochs))  # noqa: E731
        m = step.astype(jnp.float32) * (meta_epochs / steps)
        rising = 0.1 + m / max(warmup, 1e-6) * (cosine(warmup) - 0.1)
        return learning_rate * jnp.where(m < warmup, rising, cosine(jnp.floor(m)))

    def fit_level(key, decoder, trained, level, valid, rate):
        """Steps of one flow over all positions of a batch `[B, h, w, D]`, and the mean of their losses."""
        level, valid = all_rows((level, valid))
        number, height, width, depth = level.shape
        cells = height * width
        x, c = level.reshape(-1, depth), jnp.asarray(position_code(condition_dimension, height, width)).reshape(cells, -1)
        # padded rows come last
        order = jnp.argsort(jnp.where(jnp.repeat(valid, cells), jax.random.uniform(key, (number * cells,)), 2.0))
        size = min(fiber_batch, number * cells)
        fibers = order[: len(order) // size * size].reshape(-1, size)
        fibers = own_rows(lambda rows: fibers[:, :rows], size // num_replicas(), axis=1)
        optimizer = optax.chain(optax.scale_by_adam(), optax.scale(-rate))

        def step(trained, fiber):
            counts = valid[fiber // cells]

            def objective(variables):
                log_p = log_likelihood(decoder, variables, x[fiber], c[fiber % cells])
                # section 3.3: the loss of the authors' code, -log sigmoid(log p / D)
                return losses.mean(-jax.nn.log_sigmoid(log_p), counts), ({}, {})

            padded = (trained.optimizer, optax.EmptyState())
            new, info = train_step(trained._replace(optimizer=padded), objective, optimizer)
            new, some = new._replace(optimizer=new.optimizer[0]), all_sum(jnp.sum(counts)) > 0
            return jax.tree.map(lambda a, b: jnp.where(some, a, b), new, trained), (info["loss"], some)

        trained, (each, some) = jax.lax.scan(step, trained, fibers)
        return trained, jnp.sum(each) / jnp.maximum(jnp.sum(some), 1).astype(each.dtype)

    def train(steps):
        def update(key, state, frozen, batch):
            del frozen
            rate = rate_at(state.steps, steps)
            fitted, total = [], 0.0
            for number, (decoder, trained, level) in enumerate(zip(decoders, state.decoders, batch.features, strict=True)):
                own = jax.random.fold_in(key, number)
                trained, loss = fit_level(own, decoder, trained, level, batch.valid, rate)
                fitted.append(trained)
                total += loss
            return CFlow(tuple(fitted), state.steps + 1, state.peak), {"loss": total, "rate": rate}

        return update

    def log_likelihoods(state, features):
        """`[B, h, w]` of each level."""
        maps = []
        for decoder, trained, level in zip(decoders, state.decoders, features, strict=True):
            rows, height, width, depth = level.shape
            c = jnp.asarray(position_code(condition_dimension, height, width)).reshape(height * width, -1)
            x = level.reshape(-1, depth)
            maps.append(log_likelihood(decoder, trained.variables, x, jnp.tile(c, (rows, 1))).reshape(rows, height, width))
        return maps

    def find_peak(key, state, frozen, batch):
        del key, frozen
        largest = jnp.stack([each.max(axis=(1, 2)) for each in log_likelihoods(state, batch.features)], axis=1)
        largest, valid = all_rows((largest, batch.valid))
        peak = jnp.maximum(state.peak, jnp.max(jnp.where(valid[:, None], largest, -jnp.inf), axis=0))
        return state._replace(peak=peak), {"peak": peak.mean()}

    def phases(spec):
        train_phase = Phase("train", train(epochs * spec.steps_per_epoch), epochs=epochs)
        return train_phase, Phase("peak", find_peak)

    def predict(state, frozen, batch):
        del frozen
        size = batch.image.shape[1:3]
        maps = jnp.full((len(batch.image), *size), float(len(layers)))
        for number, log_p in enumerate(log_likelihoods(state, batch.features)):
            # section 3.4: likelihoods of the levels are added at the size of the input
            maps -= ops.anomaly_map(jnp.exp(log_p - state.peak[number]), size, align_corners=True)
        return Prediction(maps.max(axis=(1, 2)), maps)

    def warm_start(fresh, old):
        return fresh._replace(decoders=tuple(map(copy_variables, fresh.decoders, old.decoders)))

    return Detector(init, phases, predict, embed, warm_start=warm_start)
