"""Losses of the field, one function each.

Every loss returns one value per image, `[B]`, in the dtype of its input; `mean` averages them over the real rows of a
padded batch. Images and features are NHWC.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax

from iadjax import ops
from iadjax.parallel.axis import all_sum

__all__ = [
    "cosine_distance",
    "deviation",
    "dice",
    "edge_mse",
    "focal",
    "focal_of_probabilities",
    "gms",
    "mean",
    "mse",
    "normal_nll",
    "normalized_l2",
    "ssim",
    "truncated_l1",
    "weigh_gradient",
]


def mean(values: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean of `[B]` values over the rows where `valid [B]` is true.

    Each of several replicas gets the part of its own rows; `train_step` sums the parts.
    """
    number = jnp.maximum(all_sum(jnp.sum(valid)), 1)
    return jnp.sum(jnp.where(valid, values, 0)) / number.astype(values.dtype)


def mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """Mean of (x - y)^2 over everything but the first axis."""
    return jnp.mean(optax.losses.squared_error(x, y), axis=tuple(range(1, x.ndim)))


def edge_mse(x: jax.Array, y: jax.Array) -> jax.Array:
    """1/2 the mean of (x - y)^2 of `[B, H, W]`, and 1/4 that of its differences along rows and along columns each.

    The differences count as 0 at the last row and column. PNI's refinement (Bae et al., ICCV 2023) is trained by it.
    """
    error = x - y
    mean = lambda e: jnp.sum(e**2, axis=(1, 2)) / math.prod(error.shape[1:])  # noqa: E731
    return mean(error) / 2 + (mean(jnp.diff(error, axis=1)) + mean(jnp.diff(error, axis=2))) / 4


def ssim(x: jax.Array, y: jax.Array, **options) -> jax.Array:
    """1 - the mean of the structural similarity map of `[B, H, W, C]` images (Wang et al., 2004; options: `ops.ssim`)."""
    return 1 - jnp.mean(ops.ssim(x, y, **options), axis=(1, 2, 3))


def gms(x: jax.Array, y: jax.Array, scales: int = 4, c: float = 0.0026) -> jax.Array:
    """Multi-scale gradient magnitude similarity: mean over scales of 1 - GMS.

    GMS = (2 g(x) g(y) + c) / (g(x)^2 + g(y)^2 + c) with g the Prewitt gradient magnitude of the grey image (Xue et al.,
    2014); every scale halves the image by 2 x 2 averaging, as in RIAD (Zavrtanik et al., 2021, eq. 5-6).

    Args:
      x, y: `[B, H, W, C]` in [0, 1]; sides divisible by 2^(scales - 1).
      scales: number of scales.
      c: the constant of GMS for images in [0, 1].
    """
    x, y = (jnp.mean(each, axis=-1, keepdims=True) for each in (x, y))
    total = 0.0
    for scale in range(scales):
        if scale:
            x, y = (ops.block_mean(each, 2) for each in (x, y))
        a, b = (_prewitt(each) for each in (x, y))
        total += jnp.mean(1 - (2 * a * b + c) / (a**2 + b**2 + c), axis=(1, 2, 3))
    return total / scales


def _prewitt(x: jax.Array) -> jax.Array:
    """Gradient magnitude of `[B, H, W, 1]`; zeros outside the image."""
    p = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = (p[:, :-2] + p[:, 1:-1] + p[:, 2:]) / 3
    columns = (p[:, :, :-2] + p[:, :, 1:-1] + p[:, :, 2:]) / 3
    dx, dy = rows[:, :, :-2] - rows[:, :, 2:], columns[:, :-2] - columns[:, 2:]
    # the offset keeps the gradient of the square root finite where the image is flat
    return jnp.sqrt(dx**2 + dy**2 + 1e-12)


def cosine_distance(x: jax.Array, y: jax.Array, flatten: bool = True, eps: float = 1e-8) -> jax.Array:
    """1 - cos(x, y): of the flattened features of an image, or the mean over its positions.

    RD4AD (Deng & Li, CVPR 2022) has the mean over positions in eq. 1-2. Its code, and so the published figures, take one
    cosine of the flattened features.

    Args:
      x, y: `[B, h, w, C]`.
      flatten: which of the two.
      eps: floor of each norm.
    """
    # three sums take a third of the time of Optax's form with gradients, which writes both unit vectors
    dot = lambda a, b: jnp.sum(a * b, axis=(1, 2, 3) if flatten else -1)  # noqa: E731
    x_norm, y_norm = (jnp.sqrt(jnp.maximum(dot(each, each), eps**2)) for each in (x, y))
    distance = 1 - dot(x, y) / (x_norm * y_norm)
    return jnp.mean(distance, axis=tuple(range(1, distance.ndim)))


def normalized_l2(x: jax.Array, y: jax.Array, eps: float = 1e-12) -> jax.Array:
    """Mean over positions of 1/2 |x / |x| - y / |y||^2 (STFPM, Wang et al., BMVC 2021, eq. 1-2), norms over channels.

    Args:
      x, y: `[B, h, w, C]`.
      eps: floor of each norm.
    """
    x, y = (each / jnp.maximum(optax.safe_norm(each, eps, axis=-1, keepdims=True), eps) for each in (x, y))
    return 0.5 * jnp.mean(jnp.sum((x - y) ** 2, axis=-1), axis=(1, 2))


def focal(logits: jax.Array, mask: jax.Array, gamma: float = 2.0, smoothing: float = 1e-5) -> jax.Array:
    """Focal loss: the mean over pixels of -(1 - p)^gamma log p, p the softmax probability of the pixel's class.

    Lin et al., ICCV 2017, without the class weight, as DRAEM uses it.

    Args:
      logits: `[B, H, W, 2]`, normal and anomalous.
      mask: `[B, H, W]` in {0, 1}.
      gamma: focus on hard pixels.
      smoothing: of the one-hot target t, clipped to [smoothing, 1 - smoothing]; p = sum of t softmax(logits) + smoothing.
    """
    return focal_of_probabilities(jax.nn.softmax(logits), mask, gamma, smoothing)


def focal_of_probabilities(x: jax.Array, mask: jax.Array, gamma: float = 2.0, smoothing: float = 1e-5) -> jax.Array:
    """`focal` of probabilities instead of logits, as AnomalyCLIP and APRIL-GAN use it after enlarging them.

    Args:
      x: `[B, H, W, 2]` probabilities, normal and anomalous.
      mask, gamma, smoothing: as those of `focal`.
    """
    target = jnp.clip(jax.nn.one_hot(mask, x.shape[-1], dtype=x.dtype), smoothing, 1 - smoothing)
    p = jnp.sum(target * x, axis=-1) + smoothing
    return jnp.mean(-((1 - p) ** gamma) * jnp.log(p), axis=(1, 2))


def dice(x: jax.Array, target: jax.Array, smooth: float = 1.0) -> jax.Array:
    """Dice loss 1 - (2 sum x t + s) / (sum x + sum t + s) of each image (Milletari et al., 3DV 2016, V-Net).

    Args:
      x: `[B, H, W]` probabilities.
      target: `[B, H, W]` t in {0, 1}, any dtype.
      smooth: s.
    """
    target = target.astype(x.dtype)
    total = lambda y: jnp.sum(y, axis=(1, 2))  # noqa: E731
    return 1 - (2 * total(x * target) + smooth) / (total(x) + total(target) + smooth)


def truncated_l1(score: jax.Array, label: jax.Array, th: float = 0.5) -> jax.Array:
    """Truncated L1 hinge: max(0, th - D) of normal features, max(0, th + D) of anomalous ones (SimpleNet, 2023, eq. 7).

    Args:
      score: `[B, ...]`, D: positive for normal features.
      label: `[B, ...]`, 0 normal, 1 anomalous.
      th: both truncation points th+ and -th-.
    """
    values = jnp.maximum(0, th - jnp.where(label == 0, score, -score))
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def deviation(score: jax.Array, label: jax.Array, reference: jax.Array, margin: float = 5.0) -> jax.Array:
    """Deviation loss (1 - y) |dev| + y max(0, a - dev), dev = (phi(x) - mu) / sigma (DevNet, Pang et al., 2019, eq. 6-7).

    Args:
      score: `[B]`, phi(x).
      label: `[B]`, y: 0 normal, 1 anomalous.
      reference: `[l]` draws from the prior N(0, 1); mu and sigma (with l - 1 in the denominator) are theirs.
      margin: a.
    """
    dev = (score - jnp.mean(reference)) / jnp.std(reference, ddof=1)
    return jnp.where(label == 1, jnp.maximum(0, margin - dev), jnp.abs(dev))


def normal_nll(z: Sequence[jax.Array], log_det: Sequence[jax.Array]) -> jax.Array:
    """Negative log-likelihood of a flow up to its constant: the sum over scales of 1/2 |z|^2, less log |det dz/dx|.

    Args:
      z: `[B, ...]` per scale.
      log_det: `[B]` per scale, or one of all scales together.
    """
    return sum(0.5 * jnp.sum(each**2, axis=tuple(range(1, each.ndim))) for each in z) - sum(log_det)


@jax.custom_vjp
def weigh_gradient(x: jax.Array, weight: jax.Array) -> jax.Array:
    """`x` itself, whose gradient is multiplied by `weight`, an array that broadcasts against it and gets no gradient."""
    del weight
    return x


weigh_gradient.defvjp(lambda x, weight: (x, weight), lambda weight, gradient: (gradient * weight, jnp.zeros_like(weight)))
