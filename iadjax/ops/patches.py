"""Neighbourhoods of feature maps: pooling and unfolding with PyTorch's conventions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.ops.channels import per_channel
from iadjax.ops.resample import resize

__all__ = [
    "adaptive_average_pool",
    "adaptive_average_pool_1d",
    "average_pool",
    "block_max",
    "block_mean",
    "block_repeat",
    "block_vectors",
    "from_block_vectors",
    "patch_embedding",
    "unfold",
]


def average_pool(features: jax.Array, window: int = 3) -> jax.Array:
    """Mean over `window` x `window`, stride 1, as PyTorch's `AvgPool2d(window, 1, window // 2)`: zeros at the border count.

    Args:
      features: `[B, H, W, C]`.
      window: odd.

    Returns:
      An array of the same shape.
    """
    pad = (window // 2, window // 2)
    total = jax.lax.reduce_window(features, 0.0, jax.lax.add, (1, window, window, 1), (1, 1, 1, 1), ((0, 0), pad, pad, (0, 0)))
    return total / window**2


def adaptive_average_pool(features: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Mean over windows that share a grid among `size` cells, as PyTorch's `adaptive_avg_pool2d`.

    Args:
      features: `[B, H, W, C]`.
      size: (height, width) of the result; where it divides H or W, windows do not overlap.
    """
    for axis, target in ((1, size[0]), (2, size[1])):
        source = features.shape[axis]
        if source != target:
            cells, places = np.arange(target)[:, None], np.arange(source)[None]
            inside = (places >= cells * source // target) & (places < -(-(cells + 1) * source // target))
            weights = jnp.asarray(inside / inside.sum(axis=1, keepdims=True), features.dtype)
            equation = "oh,bhwc->bowc" if axis == 1 else "ow,bhwc->bhoc"
            features = jnp.einsum(equation, weights, features, precision="highest")
    return features


def block_mean(features: jax.Array, side: int) -> jax.Array:
    """Mean over windows of `side` x `side` without overlap, as PyTorch's `AvgPool2d(side)`: what fills no window is left out.

    Args:
      features: `[B, H, W, C]`.
      side: of a window, at most H and W.

    Returns:
      `[B, H // side, W // side, C]`.
    """
    return jnp.mean(_blocks(features, side), axis=(2, 4))


def block_max(features: jax.Array, side: int) -> jax.Array:
    """The largest number of windows as those of `block_mean`, as PyTorch's `MaxPool2d(side)`."""
    return jnp.max(_blocks(features, side), axis=(2, 4))


def block_repeat(features: jax.Array, side: int) -> jax.Array:
    """Every position `side` times in both directions, `[B, H, W, C]` to `[B, side H, side W, C]`."""
    number, height, width, depth = features.shape
    blocks = jnp.broadcast_to(features[:, :, None, :, None], (number, height, side, width, side, depth))
    return blocks.reshape(number, side * height, side * width, depth)


def block_vectors(features: jax.Array, side: int) -> jax.Array:
    """Windows as those of `block_mean`, each as one vector, pixel by pixel: `[B, H // side, W // side, side^2 C]`."""
    blocks = _blocks(features, side).swapaxes(2, 3)
    return blocks.reshape(*blocks.shape[:3], -1)


def from_block_vectors(vectors: jax.Array, side: int) -> jax.Array:
    """The inverse of `block_vectors`, `[B, h, w, side^2 C]` to `[B, side h, side w, C]`."""
    batch, rows, columns, size = vectors.shape
    blocks = vectors.reshape(batch, rows, columns, side, side, size // side**2).swapaxes(2, 3)
    return blocks.reshape(batch, side * rows, side * columns, -1)


def _blocks(features: jax.Array, side: int) -> jax.Array:
    """`[B, H, W, C]` to `[B, H // side, side, W // side, side, C]`."""
    batch, height, width, depth = features.shape
    rows, columns = height // side, width // side
    return features[:, : rows * side, : columns * side].reshape(batch, rows, side, columns, side, depth)


def unfold(features: jax.Array, window: int = 3) -> jax.Array:
    """The `window` x `window` neighbourhood of every position, zeros outside: `[B, H, W, C]` to `[B, H, W, C * window^2]`.

    The order is that of PyTorch's `Unfold`: channels first, then the positions of the window row by row.
    """
    batch, height, width, depth = features.shape
    pad = window // 2
    padded = jnp.pad(features, [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    shifted = [padded[:, i : i + height, j : j + width] for i in range(window) for j in range(window)]
    return jnp.stack(shifted, axis=-1).reshape(batch, height, width, depth * window**2)


def adaptive_average_pool_1d(features: jax.Array, size: int) -> jax.Array:
    """Means over `size` bins of the last axis, as PyTorch's `AdaptiveAvgPool1d`: bin i is [floor(i n / m), ceil((i+1) n / m)).

    Args:
      features: `[..., n]`.
      size: m, the number of bins; bins overlap where n is no multiple of m.

    Returns:
      `[..., m]`.
    """
    length = features.shape[-1]
    start = np.arange(size) * length // size
    stop = -(-(np.arange(size) + 1) * length // size)
    total = jnp.zeros((*features.shape[:-1], size), features.dtype)
    for offset in range(int((stop - start).max())):
        inside = start + offset < stop
        taken = features[..., np.minimum(start + offset, length - 1)]
        total = total + taken * per_channel(inside.astype(np.float32), taken)
    return total / per_channel((stop - start).astype(np.float32), total)


def patch_embedding(
    features: Sequence[jax.Array], patch_size: int, pretrain_dimension: int, target_dimension: int
) -> jax.Array:
    """Several levels of a network as one vector for each patch, as PatchCore's authors do it; SimpleNet and EfficientAD do too.

    1. The neighbourhood of every position is unfolded to one vector, in the order (channel, pixel).
    2. Deeper levels are resized to the grid of the first one.
    3. Adaptive average pooling reduces every level to `pretrain_dimension`.
    4. The levels are concatenated and pooled to `target_dimension` likewise.

    Args:
      features: levels `[B, h, w, C]`, the finest first.
      patch_size: side of the neighbourhood, odd.
      pretrain_dimension: of every level.
      target_dimension: D of the result.

    Returns:
      `[B, h, w, D]` on the first level's grid.
    """
    height, width = features[0].shape[1:3]
    grid = (height, width)
    patches = [unfold(level, patch_size) for level in features]
    patches = [patches[0], *(resize(level, grid) for level in patches[1:])]
    levels = [adaptive_average_pool_1d(level, pretrain_dimension) for level in patches]
    return adaptive_average_pool_1d(jnp.concatenate(levels, axis=-1), target_dimension)
