"""InTra: "Inpainting Transformer for Anomaly Detection" (Pirnay & Chai, ICIAP 2022, arXiv 2104.13897).

A transformer sees the patches of a window but for one, and restores that one. What it restores of all patches makes the
inpainted image, which has no anomaly. A long window lets it look past large defects.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import adam_with_l2, step_decay
from iadjax.errors import UserError
from iadjax.nn.inpainter import Inpainter

__all__ = ["Inpainting", "as_images", "corners", "intra", "msgms_map"]

# MSGMS of patches has this many scales in the known re-implementation
SCALES = 3


class Inpainting(NamedTuple):
    """The state: the network, and the mean map of the training images with their number."""

    trained: Trained
    count: jax.Array
    mean: jax.Array


def corners(number: int, length: int) -> np.ndarray:
    """First patch of the window of each of `number` patches along one axis, as central as the border allows (section 3.3)."""
    return np.clip(np.arange(number) - length // 2, 0, number - length)


def as_images(patches: jax.Array, side: int) -> jax.Array:
    """`[W, K^2 C]`, pixel by pixel, to `[W, K, K, C]`."""
    return patches.reshape(len(patches), side, side, -1)


def _by_channel(x):
    """Channels as rows: gradients are compared within each of them."""
    return jnp.moveaxis(x, -1, 1).reshape(-1, *x.shape[1:3], 1)


def msgms_map(x: jax.Array, y: jax.Array) -> jax.Array:
    """`ops.msgms_map`, the mean over channels: `[B, H, W, C]` twice to `[B, H, W]`."""
    maps = ops.msgms_map(_by_channel(x), _by_channel(y), SCALES)
    return jnp.mean(maps.reshape(len(x), -1, *x.shape[1:3]), axis=1)


def intra(
    *,
    side: int = 16,
    length: int = 7,
    d: int = 512,
    blocks: int = 13,
    heads: int = 8,
    dropout: float = 0.0,
    msgms_weight: float = 0.01,
    ssim_weight: float = 0.01,
    windows: int = 1,
    flip_prob: float = 0.5,
    subtract_mean: bool = True,
    pool_size: int = 21,
    epochs: int = 2000,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-5,
) -> Detector:
    """Builds InTra.

    Map: squared distance of the smoothed MSGMS map, of the image and the inpainted one, to its mean over the training images.

    Args:
      side: K, of a patch in pixels.
      length: L, patches of a window along each axis, odd.
      d, blocks, heads: width of the tokens; blocks and attention heads of the transformer.
      dropout: in the feed-forward networks; 0.1 in the known re-implementation.
      msgms_weight, ssim_weight: alpha and beta of the loss L2 + alpha MSGMS + beta SSIM of a patch (eq. 5); 1 in the
        re-implementation, which compares the numbers of a patch in another order there.
      windows: drawn from each image of a batch, with one hidden patch each; the paper has 600 in an epoch.
      flip_prob: probability that a training image is mirrored. The re-implementation shifts, scales and rotates too.
      subtract_mean: subtract the mean map of the training images and square (section 3.3); False: the map as it is, as in the
        re-implementation.
      pool_size: side of the mean filter over the map, odd; zeros lie outside.
      epochs, learning_rate, weight_decay: Adam's, with the L2 term in the gradient. The rate drops to a tenth after two thirds
        of the epochs, as in the re-implementation. The authors stop by held-out images.

    Raises:
      UserError: an option out of its range, or an image whose sides are no multiples of `side` or hold no window.
    """
    check_options("[4, inf)", side=side)
    check_options("[2, inf)", d=d)
    check_options("[3, inf)", length=length)
    check_options("[1, inf)", blocks=blocks, heads=heads, windows=windows, epochs=epochs)
    check_options("[0, 1)", dropout=dropout)
    check_options("[0, 1]", flip_prob=flip_prob)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", msgms_weight=msgms_weight, ssim_weight=ssim_weight, weight_decay=weight_decay)
    check_odd(length=length, pool_size=pool_size)
    if d % (2 * heads) or side % 2 ** (SCALES - 1):
        raise UserError(
            f"detector.d must be a multiple of twice detector.heads and detector.side one of {2 ** (SCALES - 1)}, got {d}, "
            f"{heads} and {side}"
        )
    visible = np.arange(length**2 - 1, dtype=np.int32)

    def network(shape):
        return Inpainter((shape[0] // side, shape[1] // side), d, blocks, heads, dropout)

    def augment(rng, image, draw):
        del draw
        image = image[:, ::-1] if rng.random() < flip_prob else image
        grid = np.array(image.shape[:2]) // side
        corner = rng.integers(0, grid - length + 1, (windows, 2)).astype(np.int32)
        span = side * length
        crops = np.stack([image[a : a + span, b : b + span] for a, b in side * corner])
        return {"window": crops, "corner": corner, "hole": rng.integers(0, length**2, windows).astype(np.int32)}

    def optimizer(spec):
        rate = step_decay(learning_rate, 0.1, 2 / 3 * epochs * spec.steps_per_epoch)
        return adam_with_l2(rate, weight_decay)

    def init(key, frozen, spec):
        del frozen
        height, width, depth = spec.image_shape
        if height % side or width % side or min(height, width) < side * length:
            raise UserError(
                f"intra needs sides that are multiples of {side} and at least {side * length}, got {(height, width)}; set "
                "data.resize, detector.side or detector.length"
            )
        index = jnp.zeros((1, len(visible)), jnp.int32)
        variables = network(spec.image_shape).init(
            key, jnp.zeros((*index.shape, side * side * depth)), index, jnp.zeros(1, jnp.int32)
        )
        return Inpainting(init_trained(variables, optimizer(spec)), jnp.zeros(()), jnp.zeros((height, width)))

    def train(spec, key, state, frozen, batch):
        del frozen
        window, corner, hole = (batch.extra[name] for name in ("window", "corner", "hole"))
        columns = spec.image_shape[1] // side
        patches = ops.block_vectors(window.reshape(-1, *window.shape[2:]), side).reshape(-1, length**2, side * side * 3)
        corner, hole = corner.reshape(-1, 2), hole.reshape(-1, 1)
        places = np.arange(length**2, dtype=np.int32)[None]
        positions = (corner[:, :1] + places // length) * columns + corner[:, 1:] + places % length
        seen = visible[None] + (visible[None] >= hole).astype(jnp.int32)
        shown = jnp.take_along_axis(patches, seen[..., None], axis=1)
        target = jnp.take_along_axis(patches, hole[..., None], axis=1)[:, 0]
        index = [jnp.take_along_axis(positions, each, axis=1) for each in (seen, hole)]

        def objective(variables):
            rngs = {"dropout": key} if dropout else {}
            restored = network(spec.image_shape).apply(variables, shown, index[0], index[1][:, 0], train=True, rngs=rngs)
            x, y = as_images(target, side), as_images(restored, side)
            # eq. 5
            each = {
                "l2": losses.mse(target, restored),
                "msgms": msgms_weight * losses.gms(_by_channel(x), _by_channel(y), SCALES).reshape(len(x), -1).mean(axis=1),
                "ssim": ssim_weight * losses.ssim(x, y),
            }
            rows = {name: value.reshape(len(window), -1).mean(axis=1) for name, value in each.items()}
            parts = {f"loss_{name}": losses.mean(value, batch.valid) for name, value in rows.items()}
            return sum(parts.values()), ({}, parts)

        trained, info = train_step(state.trained, objective, optimizer(spec))
        return Inpainting(trained, state.count, state.mean), info

    def inpainted(variables, image):
        """The image of what is restored of every patch, from its own window."""
        rows, columns = (number // side for number in image.shape[1:3])
        first = np.stack(np.meshgrid(corners(rows, length), corners(columns, length), indexing="ij"), -1).reshape(-1, 2)
        places = np.arange(length**2)[None]
        positions = (first[:, :1] + places // length) * columns + first[:, 1:] + places % length
        hole = np.arange(rows * columns)
        seen = positions[positions != hole[:, None]].reshape(len(hole), -1)
        seen, hole = (jnp.asarray(each, jnp.int32) for each in (seen, hole))

        def one(patches):
            return network(image.shape[1:]).apply(variables, patches[seen], seen, hole)

        # one image after the other: its windows are a batch already
        restored = jax.lax.map(one, ops.block_vectors(image, side).reshape(len(image), rows * columns, -1))
        return ops.from_block_vectors(restored.reshape(len(image), rows, columns, -1), side)

    def smoothed(variables, image):
        return ops.box_mean(msgms_map(image, inpainted(variables, image)), pool_size, pool_size // 2)

    def average(key, state, frozen, batch):
        del key, frozen
        count, mean = running_mean(state.count, state.mean, smoothed(state.trained.variables, batch.image), batch.valid)
        return Inpainting(state.trained, count, mean), {"images": count}

    def predict(state, frozen, batch):
        del frozen
        maps = smoothed(state.trained.variables, batch.image)
        maps = (maps - state.mean[None]) ** 2 if subtract_mean else maps
        return Prediction(maps.max(axis=(1, 2)), maps)

    def phases(spec):
        def update(key, state, frozen, batch):
            return train(spec, key, state, frozen, batch)

        fitted = (Phase("train", update, epochs=epochs, augment=augment),)
        return (*fitted, Phase("average", average)) if subtract_mean else fitted

    def warm_start(fresh, old):
        return Inpainting(copy_variables(fresh.trained, old.trained), fresh.count, fresh.mean)

    return Detector(init, phases, predict, warm_start=warm_start)
