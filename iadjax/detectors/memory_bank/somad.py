"""SOMAD: "Anomaly detection via self-organizing map" (Li et al., ICIP 2021, arXiv 2107.09903).

A self-organizing map, a square grid of neurons, learns the features of all positions of normal images. Each neuron has the mean
and the covariance of the features to which it is nearest. The score of a position is its smallest Mahalanobis distance to a few
neurons near it.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction, abstract_batch
from iadjax.detectors.families.clusters import add_by_cluster, differences, norms_by_cluster, outer_products, passed
from iadjax.detectors.families.gaussian import draw_channels, whitening
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_options

__all__ = ["Averaging", "Measuring", "Neurons", "Organizing", "neighborhood_mean", "radii", "somad"]

_BLOCK = 32


class Averaging(NamedTuple):
    """State in the first pass.

    Attributes:
      channels: `[D]` int32, those that are kept.
      count: float32 scalar; images so far.
      mean: of the features at each position, `[h, w, D]`.
    """

    channels: jax.Array
    count: jax.Array
    mean: jax.Array


class Organizing(NamedTuple):
    """State while the map is trained.

    Attributes:
      channels: `[D]` int32.
      seen: int32 scalar; images of this pass, or of one that is over.
      epoch: int32 scalar; passes that are over.
      weights: of the neurons, `[M, D]`, in rows of the map.
      sums: `[M, D + 1]`, over the features x of each neuron in this pass, of (x - its weights, 1).
    """

    channels: jax.Array
    seen: jax.Array
    epoch: jax.Array
    weights: jax.Array
    sums: jax.Array


class Measuring(NamedTuple):
    """State in the last pass: `channels` and `weights` as before.

    Attributes:
      products: `[M, D + 1, D + 1]`, over the features x of each neuron, of r r^T with r = (x - its weights, 1).
    """

    channels: jax.Array
    weights: jax.Array
    products: jax.Array


class Neurons(NamedTuple):
    """State that predicts, of the neurons that have features alone.

    Attributes:
      channels: `[D]` int32.
      weights: `[m, D]`.
      mean: mu, `[m, D]`.
      factor: W, `[m, D, D]`, so that W^T W is the inverse of the covariance.
    """

    channels: jax.Array
    weights: jax.Array
    mean: jax.Array
    factor: jax.Array


def somad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    num_channels: int = 550,
    side: int = 56,
    rough_epochs: int = 20,
    fine_epochs: int = 15,
    num_neighbors: int = 5,
    epsilon: float = 0.01,
    sigma: float = 4.0,
) -> Detector:
    """Builds SOMAD.

    Map: Mahalanobis distance of features, the smallest to neurons near them, smoothed.

    Constants and the batch form of the map's training are those of the authors' code. After each pass a neuron's weights are
    the mean of all features, each weighed by exp(-d^2 / 2 r^2). Here d is the distance on the map from the neuron to the
    feature's own, and the radius r shrinks. Training begins with the mean feature of each position.

    Ours are three things. Features go to their neurons in a pass after the training, not in its last one, so that neurons have
    their last weights. Neighbours are neurons that have features; where none of its neighbours has any, the code gives a
    position the largest score of the test images. The first weights are resized where the map is not as large as the grid
    of features. The state holds a matrix for each neuron: 3.8 GB for 3136 neurons of 550 channels.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layers: the levels whose features are concatenated on the grid of the first one (bilinear, corners aligned).
      num_channels: how many of the concatenated channels are kept, drawn once from the seed; 0 keeps all.
      side: of the map; it has `side`^2 neurons.
      rough_epochs: passes in which r falls from a third of the side to a sixth of that.
      fine_epochs: passes after them, in which r falls from a twelfth of the side to 1.
      num_neighbors: neurons nearest to a feature whose Gaussians it is compared with; all if there are fewer.
      epsilon: is added to the diagonal of each covariance.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in `init`: more channels than there
        are.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", side=side, rough_epochs=rough_epochs, num_neighbors=num_neighbors)
    check_options("[0, inf)", num_channels=num_channels, fine_epochs=fine_epochs, sigma=sigma)
    check_options("(0, inf)", epsilon=epsilon)
    schedule = radii(side, rough_epochs, fine_epochs)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def describe(channels, batch):
        first, *deeper = batch.features
        deeper = (ops.resize(level, first.shape[1:3], align_corners=True) for level in deeper)
        return jnp.concatenate([first, *deeper], axis=-1)[..., channels]

    def init(key, frozen, spec):
        del frozen
        channels = draw_channels(key, spec, num_channels, layers)
        shape = jax.eval_shape(describe, channels, abstract_batch(spec)).shape[1:]
        return Averaging(channels, jnp.float32(0), jnp.zeros(shape))

    def average(key, state, frozen, batch):
        del key, frozen
        x = describe(state.channels, batch)
        return Averaging(state.channels, *running_mean(state.count, state.mean, x, batch.valid)), {"images": state.count}

    def begin(key, state, frozen):
        del key, frozen
        weights = ops.resize(state.mean[None], (side, side)).reshape(side**2, -1)
        sums = jnp.zeros((side**2, weights.shape[1] + 1))
        return Organizing(state.channels, jnp.int32(0), jnp.int32(0), weights, sums)

    def summed(totals, state, batch, of):
        """Totals of each neuron with what `of` makes of its rows (x - weights, 1)."""
        x = describe(state.channels, batch)
        x = x.reshape(-1, x.shape[-1])
        y, label = differences(x, state.weights, _nearest(x, state.weights, 1)[:, 0], batch.valid)
        rows = jnp.concatenate([y, jnp.ones_like(y[:, :1])], axis=1)
        return add_by_cluster(totals, rows, label, of, _BLOCK)

    def organize(spec, key, state, frozen, batch):
        del key, frozen
        seen, done = passed(state.seen, batch.valid, spec.num_images)
        sums = summed(state.sums, state, batch, lambda part: jnp.sum(part, axis=0))
        radius = jnp.asarray(schedule, jnp.float32)[state.epoch]
        weights = jnp.where(done, neighborhood_mean(state.weights, sums, radius), state.weights)
        state = Organizing(state.channels, seen, state.epoch + done.astype(jnp.int32), weights, jnp.where(done, 0, sums))
        return state, {"radius": radius}

    def measure(key, state, frozen, batch):
        del key, frozen
        products = summed(state.products, state, batch, outer_products)
        return Measuring(state.channels, state.weights, products), {"features": jnp.sum(products[:, -1, -1])}

    def factorize(key, state, frozen):
        del key, frozen
        kept = np.flatnonzero(np.asarray(state.products[:, -1, -1]))
        weights, products = state.weights[kept], state.products[kept]
        number = products[:, -1:, -1:]
        step = products[:, :-1, -1] / number[:, 0]
        # N - 1 in the denominator, as in the authors' code; a neuron of one feature has no covariance
        scatter = products[:, :-1, :-1] - number * step[:, :, None] * step[:, None]
        factor = whitening(scatter / jnp.maximum(number - 1, 1), epsilon)
        return Neurons(state.channels, weights, weights + step, factor)

    def phases(spec):
        def to_measure(key, state, frozen):
            del key, frozen
            number, depth = state.sums.shape
            return Measuring(state.channels, state.weights, jnp.zeros((number, depth, depth)))

        return (
            Phase("average", average, begin, finalized=lambda state: Organizing(*state[:1], *(state.count,) * 4)),
            Phase(
                "organize",
                lambda *arguments: organize(spec, *arguments),
                to_measure,
                epochs=rough_epochs + fine_epochs,
                finalized=lambda state: Measuring(state.channels, state.weights, state.sums),
            ),
            Phase("measure", measure, factorize, finalized=lambda state: Neurons(*state, state.products)),
        )

    def predict(state, frozen, batch):
        del frozen
        x = describe(state.channels, batch)
        grid, x = x.shape[:3], x.reshape(-1, x.shape[-1])
        nearest = _nearest(x, state.weights, min(num_neighbors, len(state.weights)))
        distance = norms_by_cluster(x, nearest, state.mean, state.factor, _BLOCK)
        maps = ops.anomaly_map(jnp.min(distance, axis=1).reshape(grid), batch.image.shape[1:3], sigma)
        return Prediction(maps.max(axis=(1, 2)), maps)

    return Detector(init, phases, predict, embed)


def _nearest(x: jax.Array, weights: jax.Array, number: int) -> jax.Array:
    """Neurons nearest to features `[N, D]`: `[N, number]`."""
    # neurons of a young map are almost alike; without what they have in common rounding decides less often between them
    centre = jnp.mean(weights, axis=0, keepdims=True)
    return ops.nearest_neighbors(x - centre, weights - centre, number)[1]


def radii(side: int, rough: int, fine: int) -> np.ndarray:
    """The radius of the neighbourhood in each pass, in neurons."""
    first, second = max(1.0, math.ceil(side / 3)), max(1.0, side / 12)
    return np.concatenate([np.linspace(first, max(1.0, first / 6), rough), np.linspace(second, max(1.0, second / 25), fine)])


def neighborhood_mean(weights: jax.Array, sums: jax.Array, radius: jax.Array) -> jax.Array:
    """The weights `[M, D]` after a pass of sums `[M, D + 1]`; a neuron with no feature within reach keeps its own."""
    side = math.isqrt(len(weights))
    number = sums[:, -1:]
    totals = jnp.concatenate([sums[:, :-1] + number * weights, number], axis=1).reshape(side, side, -1)
    place = jnp.arange(side, dtype=jnp.float32)
    # exp(-d^2 / 2 r^2) is a product over rows and columns
    near = jnp.exp(-((place[:, None] - place[None]) ** 2) / (2 * radius**2))
    totals = jnp.einsum("ai,bj,ijd->abd", near, near, totals, precision="highest").reshape(len(weights), -1)
    # far away the weights are too small for float32
    reached = totals[:, -1:] > 1e-20
    return jnp.where(reached, totals[:, :-1] / jnp.where(reached, totals[:, -1:], 1), weights)
