"""PyramidFlow: "High-Resolution Defect Contrastive Localization using Pyramid Normalizing Flow" (Lei et al., CVPR 2023,
arXiv 2303.02595).

A pyramid of fine features goes through a flow that keeps volumes. It is trained so that normal images have latent pyramids that
differ little from each other. What differs from their mean, the template, is anomalous.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, init_trained, train_step
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.pyramid_flow import PyramidCoupling, build_pyramid, compose_pyramid
from iadjax.parallel.axis import all_rows, num_replicas

__all__ = ["Flow", "pair_loss", "pyramidflow"]


class Templates(NamedTuple):
    """State of PyramidFlow.

    Attributes:
      trained: the flow and its optimiser.
      count: float32 scalar; images that the template holds.
      template: mean latent level `[h, w, C]` of each level of the pyramid.
    """

    trained: Trained
    count: jax.Array
    template: tuple[jax.Array, ...]


class Flow(nn.Module):
    """Couplings of a pyramid (section 3.3): in each stack all odd levels are moved by their neighbours, then all even ones.

    Attributes:
      levels, stacks: their numbers.
      kernel: of the couplings' networks.
      clamp: of the log scales.
      norm: "channel" or "spatial", see `PyramidCoupling`.
    """

    levels: int
    stacks: int
    kernel: int
    clamp: float
    norm: str

    @nn.compact
    def __call__(self, levels, valid: jax.Array | None = None, inverse: bool = False):
        """Levels `[B, h, w, C]` to latent ones, or back, and log |det| `[B]`; `valid`: rows of training, None: prediction."""
        order = [*range(1, self.levels, 2), *range(0, self.levels, 2)] * self.stacks
        options = (self.kernel, self.clamp, self.norm)
        blocks = [PyramidCoupling(level, *options, name=f"module_list_{i}") for i, level in enumerate(order)]
        total = 0.0
        for block in blocks[::-1] if inverse else blocks:
            levels, log_det = block(levels, valid, inverse)
            total += log_det
        return levels, total


def pair_loss(levels, valid: jax.Array) -> jax.Array:
    """The mean over pairs of images of the mean magnitude of their composed squared difference's spectrum (eq. 9 and 10).

    Args:
      levels: latent levels `[B, h, w, C]`.
      valid: `[B]`; a pair counts if both images do.
    """
    first, second = np.triu_indices(len(valid), 1)
    difference = compose_pyramid([(level[first] - level[second]) ** 2 for level in levels]).mean(axis=-1)
    values = jnp.mean(jnp.abs(jnp.fft.fft2(difference)), axis=(1, 2))
    pairs = (valid[first] & valid[second]).astype(values.dtype)
    return jnp.sum(pairs * values) / jnp.maximum(pairs.sum(), 1)


def pyramidflow(
    backbone: Backbone,
    *,
    layer: str = "layer1",
    levels: int = 4,
    stacks: int = 4,
    kernel: int = 7,
    clamp: float = 2.0,
    norm: str = "channel",
    flips: bool = False,
    epochs: int = 15,
    learning_rate: float = 2e-4,
    weight_decay: float = 1e-5,
    clip_norm: float = 1.0,
) -> Detector:
    """Builds PyramidFlow.

    Map: composed absolute difference of latent levels from the template, the mean over channels.

    Args:
      backbone: frozen network, ResNet-18 in the paper; its variables are `frozen["backbone"]`. In the authors' training its
        BatchNorms take statistics of the batch, which drift; here they are as they were.
      layer: its level.
      levels: of the pyramid; images whose grid is a multiple of 2^(levels - 1).
      stacks: how often each level is moved.
      kernel: of both convolutions of a coupling's network, odd.
      clamp: of the log scales.
      norm: whose mean a log scale has not: "channel": of all channels and images, at each position (CVN), which binds the model
        to one size; "spatial": of all positions and images, for each channel (SVN), for carpet, grid, bottle and transistor.
      flips: mirrored and turned images in training, as the authors have for textures.
      epochs: passes over the images; pairs of every batch of two are compared.
      learning_rate, weight_decay: Adam's (betas 0.5 and 0.9, epsilon 1e-4), with the L2 term in the gradient.
      clip_norm: largest norm of all gradients together; 0: not clipped.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, batches of one image, or a grid that does
        not halve.
    """
    (layer,) = check_layers(backbone, (layer,))
    check_options("[2, inf)", levels=levels)
    check_options("[1, inf)", stacks=stacks, epochs=epochs)
    check_options("(0, inf)", clamp=clamp, learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay, clip_norm=clip_norm)
    check_odd(kernel=kernel)
    if norm not in ("channel", "spatial"):
        raise UserError(f"detector.norm must be 'channel' or 'spatial', got {norm!r}")
    flow = Flow(levels, stacks, kernel, clamp, norm)
    adam = adam_with_l2(learning_rate, weight_decay, b1=0.5, b2=0.9, eps=1e-4)
    optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), adam) if clip_norm else adam

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, (layer,))[0]

    def latent(state, features):
        return flow.apply(state.trained.variables, build_pyramid(features, levels))[0]

    def init(key, frozen, spec):
        del frozen
        height, width, depth = spec.features.shape[1:]
        if height % 2 ** (levels - 1) or width % 2 ** (levels - 1):
            raise UserError(f"pyramidflow needs a grid that halves {levels - 1} times, got {height} x {width}; lower levels")
        if spec.batch_size < 2:
            raise UserError("pyramidflow compares images of a batch; set data.batch_size above 1")
        template = tuple(jnp.zeros((height >> i, width >> i, depth)) for i in range(levels))
        variables = flow.init(key, [each[None] for each in template])
        return Templates(init_trained(variables, optimizer), jnp.zeros(()), template)

    def augment(rng, image, draw):
        del draw
        image = np.rot90(image, 2 * rng.integers(2) if image.shape[0] != image.shape[1] else rng.integers(4))
        return {"flipped": np.ascontiguousarray(image[::-1] if rng.random() < 0.5 else image)}

    def learn(key, state, frozen, batch):
        del key
        features = embed(frozen, batch.extra["flipped"]) if flips else batch.features

        def objective(variables):
            pyramid = build_pyramid(features, levels)
            (z, _), changed = flow.apply(variables, pyramid, batch.valid, mutable="batch_stats")
            # each replica has all pairs, and its part of their loss
            return pair_loss(*all_rows((z, batch.valid))) / num_replicas(), (changed, {})

        trained, info = train_step(state.trained, objective, optimizer)
        return state._replace(trained=trained), info

    def average(key, state, frozen, batch):
        del key, frozen
        count, template = running_mean(state.count, state.template, tuple(latent(state, batch.features)), batch.valid)
        return Templates(state.trained, count, template), {"images": count}

    def phases(spec):
        del spec
        return Phase("train", learn, epochs=epochs, augment=augment if flips else None), Phase("template", average)

    def predict(state, frozen, batch):
        del frozen
        pairs = zip(latent(state, batch.features), state.template, strict=True)
        grid = compose_pyramid([jnp.abs(z - mean[None]) for z, mean in pairs]).mean(axis=-1)
        return Prediction(grid.max(axis=(1, 2)), ops.anomaly_map(grid, batch.image.shape[1:3]))

    return Detector(init, phases, predict, embed)
