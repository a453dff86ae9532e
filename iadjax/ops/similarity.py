"""Similarity of two images: of their structure, as products with banded matrices, and of their gradient magnitudes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.ops.patches import block_mean
from iadjax.ops.resample import resize

__all__ = ["gradient_similarities", "gradient_similarity", "msgms_map", "ssim"]


def ssim(
    x: jax.Array,
    y: jax.Array,
    window: int = 11,
    sigma: float = 1.5,
    data_range: float = 1.0,
    *,
    mirror: bool = False,
    unbiased: bool = False,
    luminance: bool = True,
) -> jax.Array:
    """Map of the structural similarity of two images (Wang et al., IEEE TIP 2004, eq. 13), for each channel.

    A window weights local means, variances and the covariance.

    Args:
      x, y: `[B, H, W, C]`.
      window: side of the window, odd.
      sigma: of its Gaussian, in pixels; 0: all weights are equal.
      data_range: L, the distance between the largest and the smallest possible value; C1 = (.01 L)^2, C2 = (.03 L)^2.
      mirror: outside the image are its mirrored pixels, the edge repeated, instead of zeros.
      unbiased: variances and covariance have n - 1 in the denominator, n the window's pixels.
      luminance: the product of all three factors; otherwise that of contrast and structure.

    Returns:
      `[B, H, W, C]`, at most 1.
    """
    rows, columns = (jnp.asarray(_window(side, window, sigma, mirror), x.dtype) for side in x.shape[1:3])

    def local(image):
        return jnp.einsum("oh,bhwc,pw->bopc", rows, image, columns, precision="highest")

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    factor = window**2 / (window**2 - 1) if unbiased else 1.0
    mean_x, mean_y = local(x), local(y)
    var_x, var_y = factor * (local(x * x) - mean_x**2), factor * (local(y * y) - mean_y**2)
    cov = factor * (local(x * y) - mean_x * mean_y)
    structure, contrast = 2 * cov + c2, var_x + var_y + c2
    if not luminance:
        return structure / contrast
    return ((2 * mean_x * mean_y + c1) * structure) / ((mean_x**2 + mean_y**2 + c1) * contrast)


@functools.lru_cache
def _window(size: int, window: int, sigma: float, mirror: bool) -> np.ndarray:
    """`[size, size]` banded matrix of the window along one axis."""
    offsets = np.arange(window) - window // 2
    taps = np.exp(-0.5 * (offsets / sigma) ** 2) if sigma else np.ones(window)
    matrix = np.zeros((size, size))
    for offset, tap in zip(offsets, taps / taps.sum(), strict=True):
        places = np.arange(size) + offset
        inside = (places >= 0) & (places < size)
        if mirror:
            # half-sample symmetry, whose period is 2 size
            places = places % (2 * size)
            places, inside = np.minimum(places, 2 * size - 1 - places), np.ones(size, bool)
        np.add.at(matrix, (np.arange(size)[inside], places[inside]), tap)
    return matrix


def gradient_similarity(x: jax.Array, y: jax.Array, c: float = 0.0026, *, median: bool = False, pad: bool = True) -> jax.Array:
    """GMS = (2 g(x) g(y) + c) / (g(x)^2 + g(y)^2 + c), g the Prewitt gradient magnitude of the grey image (Xue et al., 2014).

    Args:
      x, y: `[B, H, W, C]`; the grey image is the mean over channels.
      c: constant of stability, for images in [0, 1].
      median: the grey image is first smoothed by a 3 x 3 median, mirrored at its border.
      pad: zeros outside the image; otherwise the map loses its outermost pixels.

    Returns:
      `[B, H, W]`, or `[B, H - 2, W - 2]` without `pad`; at most 1.
    """
    # both at once, each image beside its other: half of the operations to compile, and rows stay on their devices
    both = jnp.mean(jnp.stack([x, y], axis=1), axis=-1).reshape(-1, *x.shape[1:3])
    if median:
        both = _median(both)
    magnitude = _prewitt(both, pad)
    a, b = jnp.moveaxis(magnitude.reshape(-1, 2, *magnitude.shape[1:]), 1, 0)
    return (2 * a * b + c) / (a**2 + b**2 + c)


def gradient_similarities(x: jax.Array, y: jax.Array, scales: int = 4, **options) -> list[jax.Array]:
    """`gradient_similarity` of the images and of each of their halves, quarters ... by 2 x 2 averaging, the finest first."""
    maps = []
    for scale in range(scales):
        if scale:
            x, y = block_mean(x, 2), block_mean(y, 2)
        maps.append(gradient_similarity(x, y, **options))
    return maps


def msgms_map(x: jax.Array, y: jax.Array, scales: int = 4, **options) -> jax.Array:
    """1 - the mean over scales of the enlarged maps of `gradient_similarities` (RIAD, 2021, eq. 5-8): `[B, H, W]`."""
    maps = gradient_similarities(x, y, scales, **options)
    enlarged = [resize(each[..., None], (x.shape[1], x.shape[2]))[..., 0] for each in maps]
    return 1 - jnp.mean(jnp.stack(enlarged), axis=0)


def _prewitt(x: jax.Array, pad: bool) -> jax.Array:
    """Gradient magnitude of `[B, H, W]`."""
    p = jnp.pad(x, ((0, 0), (1, 1), (1, 1))) if pad else x
    rows = (p[:, :-2] + p[:, 1:-1] + p[:, 2:]) / 3
    columns = (p[:, :, :-2] + p[:, :, 1:-1] + p[:, :, 2:]) / 3
    dx, dy = rows[:, :, :-2] - rows[:, :, 2:], columns[:, :-2] - columns[:, 2:]
    # the offset keeps the gradient of the square root finite where the image is flat
    return jnp.sqrt(dx**2 + dy**2 + 1e-12)


def _median(x: jax.Array) -> jax.Array:
    """The median of every 3 x 3 window of `[B, H, W]`; outside are mirrored pixels, the edge not repeated."""
    return _median_of_windows(jnp.pad(x, ((0, 0), (1, 1), (1, 1)), mode="reflect"))


@jax.custom_vjp
def _median_of_windows(p: jax.Array) -> jax.Array:
    """`[B, H, W]` to `[B, H - 2, W - 2]`. Its gradient goes to the pixels that equal the median, in equal parts; that of the
    comparisons would take seconds to compile."""
    return _median_of_nine(_windows(p))


def _windows(p: jax.Array) -> list[jax.Array]:
    height, width = p.shape[1] - 2, p.shape[2] - 2
    return [p[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]


def _median_forward(p: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    found = _median_of_windows(p)
    return found, (p, found)


def _median_backward(kept: tuple[jax.Array, jax.Array], gradient: jax.Array) -> tuple[jax.Array]:
    p, found = kept
    number = functools.reduce(jnp.add, [(each == found).astype(p.dtype) for each in _windows(p)])
    medians, parts = (_windows(jnp.pad(each, ((0, 0), (2, 2), (2, 2)))) for each in (found, gradient / number))
    return (functools.reduce(jnp.add, [jnp.where(p == median, part, 0) for median, part in zip(medians, parts, strict=True)]),)


_median_of_windows.defvjp(_median_forward, _median_backward)


def _median_of_nine(values: list[jax.Array]) -> jax.Array:
    """By sorted columns (Smith, 1996): the median of the largest minimum, the middle of middles and the least maximum."""
    low, middle, high = zip(*(_sorted(*values[i : i + 3]) for i in (0, 3, 6)), strict=True)
    largest_low = jnp.maximum(jnp.maximum(low[0], low[1]), low[2])
    least_high = jnp.minimum(jnp.minimum(high[0], high[1]), high[2])
    return _sorted(largest_low, _sorted(*middle)[1], least_high)[1]


def _sorted(a: jax.Array, b: jax.Array, c: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    a, b = jnp.minimum(a, b), jnp.maximum(a, b)
    b, c = jnp.minimum(b, c), jnp.maximum(b, c)
    return jnp.minimum(a, b), jnp.maximum(a, b), c
