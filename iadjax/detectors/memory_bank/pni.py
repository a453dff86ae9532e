"""PNI: "Industrial Anomaly Detection using Position and Neighborhood Information" (Bae et al., ICCV 2023, arXiv 2211.12634).

A patch is compared with those entries of PatchCore's bank alone that are likely at its position, and those that are likely
among its neighbours. A histogram knows the first, a network the second. A refinement network sharpens the map.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.bank import Bank
from iadjax.detectors.families.gradient import Trained, init_trained, train_step
from iadjax.detectors.families.memory_bank import add_images, bank_partition, coreset, empty_bank
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.patch_bank import inner_rows, nearest_patches, patch_features, position_histogram
from iadjax.errors import UserError
from iadjax.nn.neighborhood import Neighborhood, Refiner, inside
from iadjax.synthesis.cutpaste import cutpaste, cutpaste_scar

__all__ = ["pni"]


class Filling(NamedTuple):
    """State of PNI while its bank fills; the networks are those of `Fitted`."""

    bank: Bank
    neighborhood: Trained
    refiner: Trained


class Fitted(NamedTuple):
    """State of PNI behind its bank.

    Attributes:
      embedding: `[M, D]`, the embedding coreset.
      distribution: `[K, D]`, the distribution coreset, whose entries the neighbourhood predicts.
      entry: `[M]` int32, the distribution coreset's nearest entry of each row of the embedding coreset.
      position: `[h, w, M]`, the probability of each row at each position.
      radius: of the smallest balls around the embedding coreset that hold all patches: the refinement network's unit.
      neighborhood, refiner: networks with their optimisers.
    """

    embedding: jax.Array
    distribution: jax.Array
    entry: jax.Array
    position: jax.Array
    radius: jax.Array
    neighborhood: Trained
    refiner: Trained


def pni(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3"),
    patch_size: int = 5,
    pretrain_dimension: int = 1024,
    target_dimension: int = 1024,
    coreset_ratio: float = 0.01,
    projection_eps: float = 0.9,
    distribution_size: int = 2048,
    reach: int = 4,
    skip_next: bool = False,
    mlp_layers: int = 10,
    hidden: int = 2048,
    dropout: float = 0.5,
    epochs: int = 15,
    learning_rate: float = 1e-3,
    decay_every: int = 5,
    temperature: float = 2.0,
    gamma: float = 0.99,
    least_likely: float = 0.5,
    sigma: float = 8.0,
    refine_steps: int = 5000,
    refine_weight: float = 0.1,
    refine_width: int = 32,
    refine_halvings: int = 5,
    refine_learning_rate: float = 1e-4,
) -> Detector:
    """Builds PNI.

    Map: negative log-likelihood of a patch, smoothed, and a part of the refinement network's correction.

    Args:
      backbone: frozen network phi; its variables are `frozen["backbone"]`.
      layers, patch_size, pretrain_dimension, target_dimension: of the patch features, as PatchCore's with "unfold". Patches
        that reach over the border stay out of the bank, and have the score of the nearest other patch.
      coreset_ratio, projection_eps: of the embedding coreset, as PatchCore's.
      distribution_size: K, the first choices of the greedy coreset.
      reach: p, neighbours to each side; positions that far share their histogram as well.
      skip_next: the authors' code leaves out the patch behind the centre, and so shows the network the patch itself.
      mlp_layers, hidden, dropout: of the neighbourhood's network.
      epochs, learning_rate, decay_every: Adam's; the rate falls to a tenth after so many epochs. A step sees the patches of a
        batch of images; the authors shuffle the patches of all. They keep the best epoch on a tenth of them, here the last.
      temperature: of the softmax over the entries in prediction.
      gamma: lambda, of the likelihood lambda exp(-lambda d) at the distance d (eq. 3).
      least_likely: a row of the bank is compared where its probability is above this, over the number of rows.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.
      refine_steps: of the refinement network's training, on pasted patches and scars; 0: no refinement. The authors' is a
        DenseNet-161, trained on images that are not published. Steps, width and depth are ours.
      refine_weight: of its correction.
      refine_width, refine_halvings, refine_learning_rate: of the refinement network, and Adam's.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or too small images.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", distribution_size=distribution_size, reach=reach, hidden=hidden, epochs=epochs)
    check_options("[1, inf)", decay_every=decay_every, refine_width=refine_width, refine_halvings=refine_halvings)
    check_options("[2, inf)", mlp_layers=mlp_layers)
    rates = {"learning_rate": learning_rate, "refine_learning_rate": refine_learning_rate}
    check_options("(0, inf)", temperature=temperature, gamma=gamma, **rates)
    check_options("[0, inf)", sigma=sigma, refine_steps=refine_steps, least_likely=least_likely)
    check_options("(0, 1]", coreset_ratio=coreset_ratio)
    check_options("(0, 1)", projection_eps=projection_eps)
    check_options("[0, 1]", refine_weight=refine_weight, dropout=dropout)
    embed = patch_features(backbone, layers, "unfold", patch_size, pretrain_dimension, target_dimension)
    border = patch_size // 2
    refiner = Refiner(refine_width, refine_halvings)

    def network(entries):
        return Neighborhood(entries, mlp_layers, hidden, dropout, reach, border, skip_next)

    def neighborhood_optimizer(spec):
        return optax.adam(optax.exponential_decay(learning_rate, decay_every * spec.steps_per_epoch, 0.1, staircase=True))

    def init(key, frozen, spec):
        del frozen
        height, width, depth = spec.features.shape[1:]
        if min(height, width) <= 2 * border:
            raise UserError(f"pni has no patch inside the border of {border} on a grid of {height} x {width}")
        if refine_steps and any(side % 2**refine_halvings for side in spec.image_shape[:2]):
            raise UserError(f"detector.refine_halvings asks for sides that are multiples of {2**refine_halvings}")
        entries = min(distribution_size, spec.num_images * (height - 2 * border) * (width - 2 * border))
        first, second = jax.random.split(key)
        variables = network(entries).init(first, jnp.zeros((1, height, width, depth)))
        image = jnp.zeros((1, 2**refine_halvings, 2**refine_halvings, 3))
        return Filling(
            empty_bank(spec.num_images * height * width, height * width, depth),
            init_trained(variables, neighborhood_optimizer(spec)),
            init_trained(refiner.init(second, image, image[..., 0]), optax.adam(refine_learning_rate)),
        )

    def maps_of(state, features, size):
        """The score of each image and the map before its refinement."""
        batch, height, width, _ = features.shape
        logits = network(len(state.distribution)).apply(state.neighborhood.variables, features)
        likely = jax.nn.softmax(logits / temperature).reshape(batch, -1, len(state.distribution))
        inner = inside(features, border)
        least = least_likely / len(state.embedding)
        here = inside(state.position[None], border).reshape(-1, len(state.embedding)) > least

        def one(pair):
            x, near = pair
            squared = ops.squared_distances(x, state.embedding)
            farthest = jnp.max(squared, axis=1, keepdims=True)
            both = (jnp.min(jnp.where(each, squared, farthest), axis=1) for each in (here, near[:, state.entry] > least))
            # eq. 3: -log of gamma exp(-gamma d), the mean of both
            return sum(gamma * jnp.sqrt(jnp.maximum(d, 0)) for d in both) / 2 - math.log(gamma)

        rows = jax.lax.map(one, (inner.reshape(batch, -1, inner.shape[-1]), likely))
        grid = jnp.pad(rows.reshape(inner.shape[:3]), ((0, 0), (border, border), (border, border)), mode="edge")
        return rows.max(axis=1), ops.anomaly_map(grid, size, sigma)

    def phases(spec):
        _, height, width, _ = spec.features.shape

        def add(key, state, frozen, batch):
            del key, frozen
            features = batch.features.reshape(len(batch.valid), height * width, -1)
            bank = add_images(state.bank, features, batch)
            return state._replace(bank=bank), {"bank_images": bank.count, "bank_rows": bank.rows}

        def choose(key, state, frozen):
            del frozen
            bank = state.bank
            kept, place = inner_rows(bank, (height, width), border)
            entries = len(state.neighborhood.variables["params"]["last_layer_0"]["bias"])
            number = max(1, int(coreset_ratio * len(kept)))
            inner = ops.take_rows(bank.features, kept)
            chosen = ops.rows_at(inner, coreset(key, inner, max(number, entries), len(kept), projection_eps))
            embedding, distribution = chosen[:number], chosen[:entries]
            _, entry = ops.nearest_neighbors(embedding, distribution)
            distance, nearest = (np.asarray(each)[: len(kept), 0] for each in ops.nearest_neighbors(inner, embedding))
            counts = np.zeros((height * width, number), np.float32)
            np.add.at(counts, (place, nearest), 1)
            position = jnp.asarray(position_histogram(counts.reshape(height, width, number), reach))
            # a bank of all patches has no radius
            radius = jnp.float32(distance.max() or 1)
            return Fitted(embedding, distribution, entry[:, 0], position, radius, *state[1:])

        def fitted(state):
            return Fitted(*(state.bank.rows for _ in Fitted._fields[:5]), *state[1:])

        def learn(key, state, frozen, batch):
            del frozen
            _, target = nearest_patches(inside(batch.features, border), state.distribution)

            def objective(variables):
                model = network(len(state.distribution))
                options = {"mutable": "batch_stats", "rngs": {"dropout": key}}
                logits, changed = model.apply(variables, batch.features, batch.valid, **options)
                cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
                loss = cross_entropy(logits.reshape(*target.shape, -1), target)
                return losses.mean(jnp.mean(loss, axis=1), batch.valid), (changed, {})

            trained, info = train_step(state.neighborhood, objective, neighborhood_optimizer(spec))
            return state._replace(neighborhood=trained), info

        def augment(rng, image, draw):
            del draw
            image, mask = (cutpaste if rng.random() < 0.5 else cutpaste_scar)(rng, image)
            return {"augmented": image, "mask": mask}

        def refine(key, state, frozen, batch):
            del key
            image, target = batch.extra["augmented"], batch.extra["mask"].astype(jnp.float32)
            _, maps = maps_of(state, embed(frozen, image), image.shape[1:3])
            maps /= gamma * state.radius

            def objective(variables):
                corrected = maps + refiner.apply(variables, image, maps)
                return losses.mean(losses.edge_mse(corrected, target), batch.valid), ({}, {})

            trained, info = train_step(state.refiner, objective, optax.adam(refine_learning_rate))
            return state._replace(refiner=trained), info

        refinement = Phase("refine", refine, steps=refine_steps, augment=augment)
        found = Phase("fit", add, choose, finalized=fitted), Phase("neighborhood", learn, epochs=epochs)
        return (*found, refinement) if refine_steps else found

    def predict(state, frozen, batch):
        del frozen
        score, maps = maps_of(state, batch.features, batch.image.shape[1:3])
        if refine_steps:
            unit = gamma * state.radius
            maps += refine_weight * unit * refiner.apply(state.refiner.variables, batch.image, maps / unit)
        return Prediction(score, maps)

    return Detector(init, phases, predict, embed, partition=bank_partition)
