"""DFR: "Unsupervised Anomaly Segmentation via Deep Feature Reconstruction" (Shi, Yang & Qi, Neurocomputing 2021, arXiv
2012.07122).

An autoencoder of 1 x 1 convolutions learns to restore the features of normal regions. What it cannot restore is anomalous.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops, progress
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gaussian import init_moments
from iadjax.detectors.families.gradient import Trained, gradient_phase, init_trained, mean_variables
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.subspace import add_vectors, components_for, covariance_of, principal_axes
from iadjax.errors import UserError
from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm

__all__ = ["FeatureAutoencoder", "dfr"]

# relu1_1 to relu4_4 of VGG-19
_LAYERS = tuple(f"relu{stage}_{i}" for stage, count in ((1, 2), (2, 2), (3, 4), (4, 4)) for i in range(1, count + 1))


class FeatureAutoencoder(nn.Module):
    """1 x 1 convolutions C, (C + 2 d) / 2, 2 d, d and back (section III.B), with the names of the authors' code.

    Attributes:
      latent: d.
      batch_norm: BatchNorm before each ReLU.
    """

    latent: int
    batch_norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        """`[B, h, w, C]` to the same shape; `valid` as that of `BatchNorm`."""
        depth, d = x.shape[-1], self.latent
        middle = (depth + 2 * d) // 2
        # layers are numbered as PyTorch's sequences number them
        step = 3 if self.batch_norm else 2
        for part, widths in (("encoder", (middle, 2 * d, d)), ("decoder", (2 * d, middle, depth))):
            for i, width in enumerate(widths):
                x = Conv(width, 1, name=f"{part}_{step * i}")(x)
                if i < 2:
                    x = BatchNorm(name=f"{part}_{step * i + 1}")(x, valid) if self.batch_norm else x
                    x = nn.relu(x)
        return x


def dfr(
    backbone: Backbone,
    *,
    layers: Sequence[str] = _LAYERS,
    map_size: int = 256,
    pooling: int = 4,
    latent: int = 0,
    variance: float = 0.9,
    num_images: int = 10,
    batch_norm: bool = True,
    epochs: int = 700,
    learning_rate: float = 1e-4,
) -> Detector:
    """Builds DFR.

    Map: mean over channels of the squared error of the restored features.

    Args:
      backbone: frozen network, VGG-19 in the paper; its variables are `frozen["backbone"]`.
      layers: levels that describe a region (section III.A), all up to relu4_4 in the paper.
      map_size: side to which each level is resized, with aligned corners.
      pooling: side of the windows, without overlap, over which the resized levels are averaged.
      latent: d; 0: the number of principal components that have the fraction `variance` of the features' variance.
      variance: see above, in (0, 1).
      num_images: the first training images, whose features the components are found of, as in the authors' code.
      batch_norm: BatchNorm before each ReLU, as in the authors' code.
      epochs, learning_rate: Adam's; the code has 150 epochs.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or a pooling that does not divide the
        size; in fitting: features that do not vary.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", map_size=map_size, pooling=pooling, num_images=num_images, epochs=epochs)
    check_options("[0, inf)", latent=latent)
    check_options("(0, 1)", variance=variance)
    check_options("(0, inf)", learning_rate=learning_rate)
    if map_size % pooling:
        raise UserError(f"detector.map_size must be a multiple of pooling, got {map_size} and {pooling}")
    optimizer = optax.adam(learning_rate)

    def embed(frozen, image):
        levels = backbone.features(frozen["backbone"], image, layers)
        # resizing and averaging are both linear: one product with the matrix of both
        means = [ops.resize_to_means(level, (map_size, map_size), pooling, align_corners=True) for level in levels]
        return jnp.concatenate(means, axis=-1)

    def network(variables: Mapping[str, Any]) -> FeatureAutoencoder:
        # d is known when the components are
        return FeatureAutoencoder(variables["params"]["decoder_0"]["kernel"].shape[-2], batch_norm)

    def begin(key, d, shape):
        return init_trained(FeatureAutoencoder(d, batch_norm).init(key, jnp.zeros(shape)), optimizer)

    def init(key, frozen, spec):
        del frozen
        if not latent:
            return init_moments((), 1, spec.features.shape[-1])
        return begin(key, latent, spec.features.shape)

    def count(key, state, frozen, batch):
        del key, frozen
        first = batch.valid & (batch.index < num_images)
        state = add_vectors(state, batch.features, first)
        return state, {"regions": state.count}

    def choose(key, state, frozen):
        del frozen
        variances, _ = principal_axes(covariance_of(state))
        if not variances[0] > 0:
            raise UserError(f"the features of the first {num_images} training images do not vary; give detector.latent")
        d = components_for(variances, variance)
        progress.say(f"the bottleneck has {d} channels, of {len(variances)}")
        return jax.jit(lambda key: begin(key, d, (1, 1, 1, len(variances))))(key)

    def loss(key, variables, frozen, batch):
        del key, frozen
        x = batch.features
        restored, changed = network(variables).apply(variables, x, batch.valid, mutable=["batch_stats"])
        return losses.mean(losses.mse(restored, x), batch.valid), (changed, {})

    def phases(spec):
        train = gradient_phase(loss, optimizer, epochs=epochs)
        if latent:
            return (train,)
        # the nesting is that of any d
        trained = jax.eval_shape(lambda: begin(jax.random.key(0), 1, (1, 1, 1, spec.features.shape[-1])))
        return (Phase("components", count, choose, when="fresh", finalized=lambda state: trained), train)

    def predict(state, frozen, batch):
        del frozen
        restored = network(state.variables).apply(state.variables, batch.features)
        error = jnp.mean((restored - batch.features) ** 2, axis=-1)
        maps = ops.anomaly_map(error, batch.image.shape[1:3], align_corners=True)
        return Prediction(jnp.max(maps, axis=(1, 2)), maps)

    def warm_start(fresh, old):
        del fresh
        variables = jax.tree.map(jnp.array, old.variables)
        return Trained(variables, optimizer.init(variables["params"]))

    # networks of several sites have one shape where d is given
    return Detector(init, phases, predict, embed, warm_start=warm_start, merge=mean_variables if latent else None)
