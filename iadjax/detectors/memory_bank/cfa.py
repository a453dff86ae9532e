"""CFA: "Coupled-hypersphere-based Feature Adaptation" (Lee, Lee & Song, IEEE Access 2022, arXiv 2206.04325).

A memory C holds the mean of the features at each position. A descriptor phi is trained so that features come to lie within
hyperspheres around their nearest centres, and outside those of the next ones. A feature's score is its distance from C.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.cluster.vq import kmeans2

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, init_trained, train_step
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import amsgrad_w
from iadjax.errors import UserError
from iadjax.nn.layers import uniform_bias, uniform_fan_in
from iadjax.ops.neighbors.tiled import search

__all__ = ["Adapting", "Averaging", "cfa"]


class Averaging(NamedTuple):
    """State of CFA while the memory is made.

    Attributes:
      trained: {"params": {"kernel", "bias", "radius"}} and the optimiser.
      count: float32 scalar; images so far.
      means: of the features of each level, `[h, w, C]`.
    """

    trained: Trained
    count: jax.Array
    means: tuple[jax.Array, ...]


class Adapting(NamedTuple):
    """State of CFA that is trained and predicts.

    Attributes:
      trained: as in `Averaging`.
      centers: C, `[M, D]`.
    """

    trained: Trained
    centers: jax.Array


def cfa(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    patch_size: int = 3,
    gamma_c: int = 1,
    gamma_d: int = 1,
    num_neighbors: int = 3,
    num_negatives: int = 3,
    nu: float = 1e-3,
    alpha: float = 0.1,
    radius: float = 1e-5,
    epochs: int = 30,
    learning_rate: float = 1e-3,
    weight_decay: float = 5e-4,
    sigma: float = 4.0,
) -> Detector:
    """Builds CFA.

    Map: Euclidean distance of adapted features to their nearest centre times its softmin weight, smoothed.

    The descriptor is a CoordConv of kernel 1: the row and the column, each from -1 to 1, are two more channels. It is linear,
    so it runs on each level's own grid before the levels are enlarged and summed, and the mean of its outputs is that of the
    mean features.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: the levels, averaged over neighbourhoods, deeper ones resized to the first one's grid, concatenated.
      patch_size: side of the neighbourhood, odd.
      gamma_c: factor by which k-means shrinks the memory; 1: every position keeps its mean.
      gamma_d: factor by which the descriptor shrinks the channels.
      num_neighbors: K, the centres that attract a feature (eq. 1), over which the score takes its softmin.
      num_negatives: J, the next centres, which repel it (eq. 2).
      nu, alpha: weight 1 / nu of both terms, and the margin of the second.
      radius: r of the hyperspheres when training begins; it is trained too, as in the authors' code.
      epochs, learning_rate, weight_decay: of AdamW with AMSGrad.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: more centres are asked for
        than there are.
    """
    layers = check_layers(backbone, layers)
    check_odd(patch_size=patch_size)
    check_options("[1, inf)", gamma_c=gamma_c, gamma_d=gamma_d, num_neighbors=num_neighbors, epochs=epochs)
    check_options("[1, inf)", num_negatives=num_negatives)
    check_options("(0, inf)", nu=nu, learning_rate=learning_rate)
    check_options("[0, inf)", alpha=alpha, radius=radius, weight_decay=weight_decay, sigma=sigma)
    optimizer = amsgrad_w(learning_rate, weight_decay)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        return tuple(ops.average_pool(level, patch_size) for level in levels)

    def describe(params, levels):
        grid = levels[0].shape[1:3]
        ends = np.cumsum([level.shape[-1] for level in levels])
        *kernels, last = jnp.split(params["kernel"], ends)
        products = [jnp.matmul(level, kernel) for level, kernel in zip(levels, kernels, strict=True)]
        phi = sum(ops.resize(each, grid) for each in products)
        rows, columns = (jnp.linspace(-1, 1, side)[:, None] for side in grid)
        return phi + (rows * last[:1])[None, :, None] + (columns * last[1:] + params["bias"][None])[None, None]

    def init(key, frozen, spec):
        del frozen
        depth = sum(level.shape[-1] for level in spec.features)
        positions = spec.features[0].shape[1] * spec.features[0].shape[2]
        if positions // gamma_c < num_neighbors + num_negatives:
            raise UserError(
                f"cfa needs {num_neighbors + num_negatives} centres, and has {positions // gamma_c}; lower detector.gamma_c, "
                "num_neighbors or num_negatives, or take larger images"
            )
        first, second = jax.random.split(key)
        shape = (depth + 2, max(1, depth // gamma_d))
        params = {
            "kernel": uniform_fan_in(first, shape),
            "bias": uniform_bias(depth + 2)(second, shape[1:]),
            "radius": jnp.float32(radius),
        }
        means = tuple(jnp.zeros(level.shape[1:]) for level in spec.features)
        return Averaging(init_trained({"params": params}, optimizer), jnp.float32(0), means)

    def average(key, state, frozen, batch):
        del key, frozen
        count, means = running_mean(state.count, state.means, batch.features, batch.valid)
        return Averaging(state.trained, count, means), {"images": count}

    def remember(key, state, frozen):
        del frozen
        means = tuple(mean[None] for mean in state.means)
        centers = jax.jit(describe)(state.trained.variables["params"], means)
        centers = centers.reshape(-1, centers.shape[-1])
        if gamma_c > 1:
            rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
            points = np.asarray(centers, np.float64)
            found, _ = kmeans2(points, len(points) // gamma_c, iter=300, minit="++", rng=rng)
            centers = jnp.asarray(found, jnp.float32)
        return Adapting(state.trained, centers)

    def loss(variables, state, batch):
        params, number = variables["params"], num_neighbors + num_negatives
        phi = describe(params, batch.features)
        rows, *_, depth = phi.shape
        phi = phi.reshape(-1, depth)
        # the search needs no gradient, and that of a distance is the difference itself
        _, _, index = search(jax.lax.stop_gradient(phi), state.centers, number, ops.BYTE_BUDGET)
        squared = jax.checkpoint(lambda x, nearest: jnp.sum((x - state.centers[nearest]) ** 2, axis=-1))
        squared = jnp.stack([squared(phi, index[:, k]) for k in range(number)], axis=-1).reshape(rows, -1, number)
        # eq. 1 and 2: the K nearest are drawn within r, the next J pushed beyond it
        attracted = jnp.maximum(squared[..., :num_neighbors] - params["radius"] ** 2, 0)
        repelled = jnp.maximum(params["radius"] ** 2 - squared[..., num_neighbors:] - alpha, 0)
        values = (jnp.mean(attracted, axis=(1, 2)) + jnp.mean(repelled, axis=(1, 2))) / nu
        return losses.mean(values, batch.valid), ({}, {})

    def adapt(key, state, frozen, batch):
        del key, frozen
        trained, info = train_step(state.trained, lambda variables: loss(variables, state, batch), optimizer)
        return Adapting(trained, state.centers), info

    def predict(state, frozen, batch):
        del frozen
        phi = describe(state.trained.variables["params"], batch.features)
        distance, _ = ops.nearest_neighbors(phi.reshape(-1, phi.shape[-1]), state.centers, num_neighbors)
        # eq. 5: the nearer the others are in proportion, the less certain the feature
        score = (jax.nn.softmax(-distance, axis=1) * distance)[:, 0].reshape(phi.shape[:3])
        maps = ops.anomaly_map(score, batch.image.shape[1:3], sigma)
        return Prediction(maps.max(axis=(1, 2)), maps)

    phases = (
        Phase("centers", average, remember, finalized=lambda state: Adapting(state.trained, state.count)),
        Phase("train", adapt, epochs=epochs),
    )
    return Detector(init, lambda spec: phases, predict, embed)
