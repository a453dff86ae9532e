"""RIAD: "Reconstruction by inpainting for visual anomaly detection" (Zavrtanik et al., Pattern Recognition 2021).

The cells of a grid are divided into disjoint sets at random. A U-Net sees the image without the cells of one set and restores
them from their surroundings. What it restores of all sets makes the inpainted image, which has no anomaly.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses, ops
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import adam_with_l2, step_decay
from iadjax.errors import UserError
from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm
from iadjax.nn.transposed import ConvTranspose
from iadjax.synthesis.cells import disjoint_cells

__all__ = ["InpaintingUNet", "inpainted", "riad"]


class _Double(nn.Module):
    """Two convolutions with BatchNorm and ReLU; the first one may halve the grid."""

    features: int
    halve: bool = False

    @nn.compact
    def __call__(self, x, valid, skip=None):
        if skip is not None:
            # twice the size, then the encoder's output of that size
            x = jnp.concatenate([ConvTranspose(self.features, name="upconv")(x), skip], axis=-1)
        first = Conv(self.features, 4, 2, 1, name="conv1") if self.halve else Conv(self.features, name="conv1")
        x = nn.relu(BatchNorm(name="bn1")(first(x), valid))
        return nn.relu(BatchNorm(name="bn2")(Conv(self.features, name="conv2")(x), valid))


class InpaintingUNet(nn.Module):
    """The U-Net (figure 3), with the names of the known re-implementation: `[B, H, W, 3]` in [-1, 1] to the same.

    Attributes:
      width: channels of the first block; each further one has twice as many, up to eight times.
      depth: blocks of the encoder, each half the size of the one before.
    """

    width: int
    depth: int = 5

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        widths, levels = [self.width * min(2**i, 8) for i in range(self.depth)], []
        for i, features in enumerate(widths, start=1):
            x = _Double(features, i > 1, name=f"down{i}")(x, valid)
            levels.append(x)
        x = levels.pop()
        for i, features in enumerate(widths[-2::-1], start=1):
            x = _Double(features, name=f"up{i}")(x, valid, levels.pop())
        return jnp.tanh(Conv(3, name="conv_final")(x))


def inpainted(network, x: jax.Array, cells: jax.Array, num_sets: int) -> tuple[jax.Array, jax.Array]:
    """The sum of what is restored of each set of cells (eq. 1-2).

    Args:
      network: `[B n, H, W, 3] -> (restored, more)`, for every n rows the sets of one image.
      x: images `[B, H, W, 3]` in [-1, 1].
      cells: number of the set of each pixel, `[B or 1, H, W]`.
      num_sets: n.

    Returns:
      `[B, H, W, 3]`, and what the network returns beside it.
    """
    hidden = jnp.stack([cells == i for i in range(num_sets)], axis=1)[..., None].astype(x.dtype)
    seen = x[:, None] * (1 - hidden)
    restored, more = network(seen.reshape(-1, *x.shape[1:]))
    return jnp.sum(restored.reshape(seen.shape) * hidden, axis=1), more


def riad(
    *,
    width: int = 64,
    depth: int = 5,
    cell_sides: Sequence[int] = (2, 4, 8, 16),
    num_sets: int = 3,
    msgms_weight: float = 1.0,
    ssim_weight: float = 1.0,
    median: bool = True,
    cell_weights: bool = False,
    window: int = 21,
    sigma: float = 0.0,
    epochs: int = 300,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-5,
) -> Detector:
    """Builds RIAD.

    Map: 1 - the multi-scale similarity of gradient magnitudes of the image and the inpainted one, the mean over sides of cells.

    The sets of cells by which test images are inpainted are drawn once, with the first weights, so that a score is always the
    same. In training each image draws a side and its sets for itself; the known re-implementation draws both for a batch.

    Args:
      width, depth: channels of the U-Net's first block, and blocks of its encoder.
      cell_sides: K, sides of the cells in pixels; training draws one of them, and prediction takes all.
      num_sets: n, disjoint sets into which the cells of an image are divided.
      msgms_weight, ssim_weight: alpha and beta of the loss L2 + alpha MSGMS + beta SSIM (eq. 7).
      median: whether grey images are smoothed by a median of 3 x 3 before their gradients, as in the known re-implementation.
      cell_weights: divide each map by the number of cells and add, as in the known re-implementation; otherwise their mean.
      window: side of the mean filter over the map, odd. The re-implementation has none (1) but `sigma` of 7.
      sigma: of a Gaussian that smooths the map, in pixels; 0: off.
      epochs, learning_rate, weight_decay: Adam's, with the L2 term in the gradient. The rate drops to a tenth after five
        sixths of the epochs. The authors stop when held-out images are restored no better for 20 epochs.

    Raises:
      UserError: an option out of its range, or sides of the image that are no multiples of the U-Net's step and of all sides of
        cells.
    """
    sides = tuple(cell_sides)
    if not sides or min(sides) < 1 or num_sets < 2:
        raise UserError(f"detector.cell_sides must be positive and num_sets at least 2, got {sides} and {num_sets}")
    check_options("[1, inf)", width=width, depth=depth, epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", msgms_weight=msgms_weight, ssim_weight=ssim_weight, sigma=sigma, weight_decay=weight_decay)
    check_odd(window=window)
    network, step = InpaintingUNet(width, depth), 2 ** (depth - 1)

    def augment(rng, image, draw):
        del draw
        side = sides[rng.integers(len(sides))]
        return {"cells": np.kron(disjoint_cells(rng, image.shape[:2], side, num_sets), np.ones((side, side), np.uint8))}

    def init_variables(key, frozen, spec):
        del frozen
        size = spec.image_shape[:2]
        if any(length % side for length in size for side in (step, *sides)) or min(size) < 32:
            raise UserError(
                f"riad needs sides of at least 32 that are multiples of {step} and of the sides of cells {sides}, got {size}; "
                "set data.resize or detector.cell_sides"
            )
        start, *keys = jax.random.split(key, 1 + len(sides))
        cells = {}
        for side, each in zip(sides, keys, strict=True):
            grid = (size[0] // side, size[1] // side)
            numbers = jnp.arange(grid[0] * grid[1], dtype=jnp.int32) % num_sets
            cells[f"side{side}"] = jax.random.permutation(each, numbers).reshape(grid)
        return {**network.init(start, jnp.zeros((1, *spec.image_shape))), "cells": cells}

    def loss(key, variables, frozen, batch):
        del key, frozen
        x = 2 * batch.image - 1
        # each set has the statistics of its own pass; the running ones move once in a step, by their mean
        valid = jnp.repeat(batch.valid[:, None], num_sets, axis=1)

        def train(images):
            return network.apply(variables, images, valid, mutable="batch_stats")

        restored, changed = inpainted(train, x, batch.extra["cells"], num_sets)
        # eq. 7
        parts = {
            "loss_l2": losses.mse(x, restored),
            "loss_msgms": msgms_weight * losses.gms(x, restored, median=median, pad=False),
            "loss_ssim": ssim_weight * losses.ssim(x, restored),
        }
        parts = {name: losses.mean(value, batch.valid) for name, value in parts.items()}
        return sum(parts.values()), (changed, parts)

    def predict(variables, frozen, batch):
        del frozen
        x, maps = 2 * batch.image - 1, []
        for side in sides:
            cells = variables["cells"][f"side{side}"]
            pixels = jnp.repeat(jnp.repeat(cells, side, axis=0), side, axis=1)[None]
            restored, _ = inpainted(lambda images: (network.apply(variables, images), ()), x, pixels, num_sets)
            weight = 1 / cells.size if cell_weights else 1 / len(sides)
            maps.append(weight * ops.msgms_map(x, restored, median=median, pad=False))
        found = ops.box_mean(sum(maps), window, window // 2)
        found = ops.gaussian_blur(found, sigma) if sigma else found
        return Prediction(jnp.max(found, axis=(1, 2)), found)

    def optimizer(spec):
        steps = epochs * spec.steps_per_epoch
        return adam_with_l2(step_decay(learning_rate, 0.1, 5 / 6 * steps), weight_decay)

    return gradient(init_variables, loss, predict, optimizer, epochs=epochs, augment=augment)
