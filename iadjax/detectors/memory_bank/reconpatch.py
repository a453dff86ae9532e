"""ReConPatch: "Contrastive Patch Representation Learning for Industrial Anomaly Detection" (Hyun et al., WACV 2024).

A linear map of PatchCore's patch features is trained before the bank is filled (arXiv 2305.16713). Patches of an image that
are near each other and have the same neighbours are drawn together, others are pushed apart. An average of earlier maps says
which are which.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase
from iadjax.detectors.families.bank import Bank, Memory
from iadjax.detectors.families.gradient import Trained, init_trained, train_step
from iadjax.detectors.families.memory_bank import add_images, bank_partition, empty_bank, remember
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.patch_bank import choose_coreset, patch_features, patch_prediction, say_small
from iadjax.detectors.families.schedules import adamp
from iadjax.nn.layers import uniform_bias, uniform_fan_in

__all__ = ["contextual_similarity", "reconpatch", "relaxed_contrastive"]


class Learning(NamedTuple):
    """State of ReConPatch while its map is trained.

    Attributes:
      trained: {"params": {"f", "g"}} and the optimiser; each of the two is a kernel and a bias.
      average: exponential moving average of the parameters.
    """

    trained: Trained
    average: Any


class Filling(NamedTuple):
    """State of ReConPatch while its bank fills: `f` of `Learning`, and the bank."""

    f: Any
    bank: Bank


class Adapted(NamedTuple):
    """State of ReConPatch that predicts: `f` of `Learning`, and the chosen rows."""

    f: Any
    memory: Memory


def reconpatch(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer2", "layer3"),
    embedding: str = "pool",
    patch_size: int = 3,
    pretrain_dimension: int = 1024,
    target_dimension: int = 1024,
    dimension: int = 512,
    projection_dimension: int = 128,
    bandwidth: float = 1.0,
    context: int = 5,
    alpha: float = 0.5,
    margin: float = 1.0,
    ema_decay: float = 0.9,
    epochs: int = 120,
    learning_rate: float = 1e-5,
    weight_decay: float = 1e-2,
    coreset_ratio: float = 0.01,
    projection_eps: float = 0.9,
    reweight: bool = True,
    num_neighbors: int = 3,
    sigma: float = 4.0,
) -> Detector:
    """Builds ReConPatch.

    Map: Euclidean distance of mapped features, smoothed.

    Args:
      backbone: frozen network phi; its variables are `frozen["backbone"]`.
      layers, embedding, patch_size, pretrain_dimension, target_dimension: of the patch features, as PatchCore's.
      dimension: of f, whose outputs the bank holds.
      projection_dimension: of g, on whose outputs the similarities are computed.
      bandwidth: sigma of the pairwise similarity exp(-d^2 / sigma) (eq. 1).
      context: k of the contextual similarity (eq. 2-4), the patch itself included; half of it for mutual neighbours.
      alpha: weight of the pairwise similarity beside the contextual one (eq. 5).
      margin: m of the relaxed contrastive loss (eq. 6), in units of a patch's mean distance.
      ema_decay: of the average, after each step.
      epochs, learning_rate, weight_decay: of AdamP, whose rate falls to zero by a cosine.
      coreset_ratio, projection_eps, reweight, num_neighbors: of the bank and its scores, as PatchCore's.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", dimension=dimension, projection_dimension=projection_dimension, epochs=epochs)
    check_options("[2, inf)", context=context)
    check_options("[1, inf)", num_neighbors=num_neighbors)
    check_options("(0, inf)", bandwidth=bandwidth, margin=margin, learning_rate=learning_rate)
    check_options("[0, 1]", alpha=alpha)
    check_options("[0, 1)", ema_decay=ema_decay)
    check_options("[0, inf)", weight_decay=weight_decay, sigma=sigma)
    check_options("(0, 1]", coreset_ratio=coreset_ratio)
    check_options("(0, 1)", projection_eps=projection_eps)
    embed = patch_features(backbone, layers, embedding, patch_size, pretrain_dimension, target_dimension)

    def optimizer(spec):
        return adamp(optax.cosine_decay_schedule(learning_rate, epochs * spec.steps_per_epoch), weight_decay)

    def init(key, frozen, spec):
        del frozen
        params = {}
        sizes = (("f", spec.features.shape[-1], dimension), ("g", dimension, projection_dimension))
        for each, (name, inputs, outputs) in zip(jax.random.split(key), sizes, strict=True):
            first, second = jax.random.split(each)
            bias = uniform_bias(inputs)(second, (outputs,))
            params[name] = {"kernel": uniform_fan_in(first, (inputs, outputs)), "bias": bias}
        # a copy: the driver donates the state
        return Learning(init_trained({"params": params}, optimizer(spec)), jax.tree.map(jnp.array, params))

    def project(params, features):
        return _linear(params["g"], _linear(params["f"], features))

    def phases(spec):
        _, height, width, _ = spec.features.shape
        patches = height * width
        transformation = optimizer(spec)

        def learn(key, state, frozen, batch):
            del key, frozen
            x = batch.features.reshape(len(batch.valid), patches, -1)

            def objective(variables):
                def one(features):
                    target = jax.lax.stop_gradient(project(state.average, features))
                    return relaxed_contrastive(
                        project(variables["params"], features), similarity(target, bandwidth, context, alpha), margin
                    )

                return losses.mean(jax.lax.map(one, x), batch.valid), ({}, {})

            trained, info = train_step(state.trained, objective, transformation)
            params = trained.variables["params"]
            average = jax.tree.map(lambda old, new: ema_decay * old + (1 - ema_decay) * new, state.average, params)
            return Learning(trained, average), info

        def begin_bank(key, state, frozen):
            del key, frozen
            return Filling(state.trained.variables["params"]["f"], empty_bank(spec.num_images * patches, patches, dimension))

        def add(key, state, frozen, batch):
            del key, frozen
            features = _linear(state.f, batch.features).reshape(len(batch.valid), patches, -1)
            bank = add_images(state.bank, features, batch)
            return Filling(state.f, bank), {"bank_images": bank.count, "bank_rows": bank.rows}

        def choose(key, state, frozen):
            del frozen
            index = choose_coreset(key, state.bank, coreset_ratio, projection_eps)
            if reweight:
                say_small(len(index), num_neighbors)
            return Adapted(state.f, remember(state.bank, index))

        def filling(state):
            f = state.trained.variables["params"]["f"]
            return Filling(f, Bank(*(f["bias"] for _ in Bank._fields)))

        def adapted(state):
            bank = state.bank
            return Adapted(state.f, Memory(bank.features, bank.rows, *bank[1:]))

        return (
            Phase("learn", learn, begin_bank, epochs=epochs, finalized=filling),
            Phase("fit", add, choose, finalized=adapted),
        )

    def predict(state, frozen, batch):
        del frozen
        size = batch.image.shape[1:3]
        return patch_prediction(_linear(state.f, batch.features), state.memory.features, size, reweight, num_neighbors, sigma)

    return Detector(init, phases, predict, embed, partition=bank_partition)


def _linear(params: Any, x: jax.Array) -> jax.Array:
    bias = params["bias"].reshape((1,) * (x.ndim - 1) + (-1,))
    return jnp.matmul(x, params["kernel"], precision="highest") + bias


def _squared_distances(z: jax.Array) -> jax.Array:
    """`[N, N]`, exactly 0 on the diagonal."""
    return jnp.where(jnp.eye(len(z), dtype=bool), 0, jnp.maximum(ops.squared_distances(z, z), 0))


def contextual_similarity(squared: jax.Array, k: int) -> jax.Array:
    """How many of its k nearest neighbours a patch shares with another (eq. 2-4), `[N, N]`, symmetric, in [0, 1].

    Args:
      squared: squared distances `[N, N]`; a patch is the nearest neighbour of itself.
      k: neighbours, at most N.
    """
    number, k = len(squared), min(k, len(squared))
    # itself first, also among patches that are equal
    _, index = jax.lax.top_k(jnp.where(jnp.eye(number, dtype=bool), 1, -squared), k)

    def neighbors(count):
        return jax.nn.one_hot(index[:, :count], number, dtype=squared.dtype).sum(axis=1)

    near = neighbors(k)
    # eq. 2: of neighbours alone
    shared = near * jnp.matmul(near, near.T) / k
    # eq. 3: the mean over the mutual neighbours among the nearer half
    half = neighbors(max(1, k // 2))
    mutual = half * half.T
    expanded = jnp.matmul(mutual, shared) / jnp.sum(mutual, axis=1, keepdims=True)
    return 0.5 * (expanded + expanded.T)


def similarity(z: jax.Array, bandwidth: float, context: int, alpha: float) -> jax.Array:
    """w of eq. 5, `[N, N]` in [0, 1], for the averaged projections `[N, D]` of the patches of an image."""
    squared = _squared_distances(z)
    return alpha * jnp.exp(-squared / bandwidth) + (1 - alpha) * contextual_similarity(squared, context)


def relaxed_contrastive(z: jax.Array, w: jax.Array, margin: float) -> jax.Array:
    """The relaxed contrastive loss of the projections `[N, D]` (eq. 6; Kim et al., CVPR 2021)."""
    distance = jnp.sqrt(_squared_distances(z) + 1e-9)
    delta = distance / jnp.mean(distance, axis=1, keepdims=True)
    values = w * delta**2 + (1 - w) * jnp.maximum(margin - delta, 0) ** 2
    return jnp.sum(jnp.mean(values, axis=1))
