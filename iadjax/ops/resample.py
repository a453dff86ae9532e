"""Linear filters over the image axes, as products with small matrices: exact conventions, fast on every backend."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError

__all__ = ["box_mean", "gaussian_blur", "kernel_blur", "resize", "resize_nearest", "resize_to_means"]


def resize(image: jax.Array, size: tuple[int, int], *, antialias: bool = False, align_corners: bool = False) -> jax.Array:
    """Bilinear resize, as PyTorch's `interpolate(mode="bilinear")` and, with `antialias`, as PIL.

    Args:
      image: `[B, H, W, C]`.
      size: (height, width).
      antialias: where the image shrinks, the filter is as many times wider.
      align_corners: the centres of the corner pixels stay, instead of the borders of the image; not with `antialias`.

    Returns:
      `[B, height, width, C]`.

    Raises:
      UserError: both `antialias` and `align_corners`.
    """
    if antialias and align_corners:
        raise UserError("resize has no form with both antialias and align_corners")
    for axis, target in ((1, size[0]), (2, size[1])):
        if image.shape[axis] != target:
            weights = jnp.asarray(_bilinear(image.shape[axis], target, antialias, align_corners), image.dtype)
            equation = "oh,bhwc->bowc" if axis == 1 else "ow,bhwc->bhoc"
            image = jnp.einsum(equation, weights, image, precision="highest")
    return image


def resize_to_means(image: jax.Array, size: tuple[int, int], side: int, *, align_corners: bool = False) -> jax.Array:
    """The means over windows without overlap of the image at another size, in one step: `block_mean(resize(...), side)`.

    Args:
      image: `[B, H, W, C]`.
      size: (height, width) of the resized image, multiples of `side`.
      side: of the windows.
      align_corners: see `resize`.

    Returns:
      `[B, height / side, width / side, C]`.
    """
    for axis, target in ((1, size[0]), (2, size[1])):
        source = image.shape[axis]
        weights = _bilinear(source, target, False, align_corners).reshape(target // side, side, source).mean(axis=1)
        equation = "oh,bhwc->bowc" if axis == 1 else "ow,bhwc->bhoc"
        image = jnp.einsum(equation, jnp.asarray(weights, image.dtype), image, precision="highest")
    return image


def resize_nearest(image: jax.Array, size: tuple[int, int]) -> jax.Array:
    """`[B, H, W, C]` of another size by nearest neighbours, as PyTorch: pixel i of the new ones is floor(i H / height)."""
    for axis, target in ((1, size[0]), (2, size[1])):
        source = image.shape[axis]
        if source % target == 0:
            # a slice, whose gradient is fast
            image = jax.lax.slice_in_dim(image, 0, source, source // target, axis)
        else:
            image = jnp.take(image, np.arange(target) * source // target, axis=axis)
    return image


@lru_cache
def _bilinear(source: int, target: int, antialias: bool, align_corners: bool) -> np.ndarray:
    """`[target, source]` weights; every row sums to one."""
    weights = np.zeros((target, source))
    if antialias and source > target:
        scale = source / target
        centers = (np.arange(target) + 0.5) * scale
        positions = np.arange(source) + 0.5
        weights = np.maximum(0, 1 - np.abs(positions - centers[:, None]) / scale)
        return weights / weights.sum(axis=1, keepdims=True)
    if align_corners:
        position = np.arange(target) * ((source - 1) / max(1, target - 1))
    else:
        position = np.maximum((np.arange(target) + 0.5) * source / target - 0.5, 0)
    lower = np.minimum(position.astype(int), source - 1)
    upper = np.minimum(lower + 1, source - 1)
    rows = np.arange(target)
    np.add.at(weights, (rows, lower), 1 - (position - lower))
    np.add.at(weights, (rows, upper), position - lower)
    return weights


def gaussian_blur(maps: jax.Array, sigma: float = 4.0, truncate: float = 4.0) -> jax.Array:
    """Gaussian filter over the last two axes, as `scipy.ndimage.gaussian_filter` (mode "reflect": the edge pixel repeats).

    Args:
      maps: `[..., H, W]`.
      sigma: standard deviation in pixels.
      truncate: radius of the kernel in standard deviations.

    Returns:
      An array of the same shape.
    """
    radius = int(truncate * sigma + 0.5)
    return _filtered(maps, *(_gaussian(size, sigma, radius, "reflect") for size in maps.shape[-2:]))


def kernel_blur(maps: jax.Array, sigma: float, taps: int, border: str = "mirror") -> jax.Array:
    """Gaussian filter of a few taps, as OpenCV, kornia and anomalib have it.

    Args:
      maps: `[..., H, W]`.
      sigma: standard deviation in pixels.
      taps: side of the kernel, odd.
      border: "mirror": mirrored, the edge pixel does not repeat; "zeros": zeros outside, as a convolution with padding has
        them, so that the border darkens.

    Returns:
      An array of the same shape.
    """
    return _filtered(maps, *(_gaussian(size, sigma, taps // 2, border) for size in maps.shape[-2:]))


def _filtered(maps: jax.Array, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    first, second = (jnp.asarray(each, maps.dtype) for each in (rows, columns))
    return jnp.einsum("oh,...hw,pw->...op", first, maps, second, precision="highest")


@lru_cache
def _gaussian(size: int, sigma: float, radius: int, border: str) -> np.ndarray:
    """`[size, size]` banded matrix of the filter."""
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    repeat = border == "reflect"
    period = 2 * size if repeat else max(1, 2 * size - 2)
    weights = np.zeros((size, size))
    for offset, tap in zip(offsets, kernel, strict=True):
        if border == "zeros":
            weights += tap * np.eye(size, k=int(offset))
            continue
        position = (np.arange(size) + offset) % period
        np.add.at(weights, (np.arange(size), np.minimum(position, period - repeat - position)), tap)
    return weights


def box_mean(maps: jax.Array, size: int, padding: int = 0) -> jax.Array:
    """Mean over every `size` x `size` window, stride 1, as PyTorch's `avg_pool2d`: zeros at the border count.

    Args:
      maps: `[..., H, W]`.
      size: side of the window.
      padding: zeros on each side.

    Returns:
      `[..., H + 2 padding - size + 1, W + 2 padding - size + 1]`.
    """
    return _filtered(maps, *(_box(source, size, padding) for source in maps.shape[-2:]))


@lru_cache
def _box(source: int, size: int, padding: int) -> np.ndarray:
    start = np.arange(source + 2 * padding - size + 1)[:, None] - padding
    position = np.arange(source)[None]
    return ((position >= start) & (position < start + size)) / size
