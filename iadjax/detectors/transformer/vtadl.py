"""VT-ADL: "A Vision Transformer Network for Image Anomaly Detection and Localization" (Mishra et al., ISIE 2021,
arXiv 2104.10036).

A vision transformer encodes the patches of an image. A decoder restores the image from all of its tokens. A mixture density
network describes where the tokens of normal images lie.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses, ops
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_multiple, check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.capsules import CAPSULE, Encoder, Restorer
from iadjax.nn.diffusion import noise_like

__all__ = ["MixtureDensity", "mixture_nll", "vtadl"]


class MixtureDensity(nn.Module):
    """Weights `[B, N, K]`, means and log-variances `[B, N, D, K]` of normal distributions for each token `[B, N, D]`.

    As in the authors' code, the heads see the positive part of a token, and log-variances are positive.

    Attributes:
      number: K.
    """

    number: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        x, shape = nn.relu(tokens), (*tokens.shape, self.number)

        def head(features, name):
            return nn.Dense(features, use_bias=False, kernel_init=nn.initializers.lecun_normal(), name=name)(x)

        wide = tokens.shape[-1] * self.number
        return (
            jax.nn.softmax(head(self.number, "pi")),
            head(wide, "mu").reshape(shape),
            nn.softplus(head(wide, "sigma_sq")).reshape(shape),
        )


def mixture_nll(
    tokens: jax.Array, weights: jax.Array, mean: jax.Array, log_variance: jax.Array, proper: bool = True
) -> jax.Array:
    """Negative log-likelihood of tokens `[B, N, D]` under mixtures (Bishop, 1994, eq. 29): `[B, N]`.

    Args:
      tokens, weights, mean, log_variance: see `MixtureDensity`.
      proper: - log sum of pi N(x). False: the sum of pi (- log N(x)) without all but one of the constants, an upper bound up to
        them: the authors' code.
    """
    squares = jnp.sum(log_variance + (tokens[..., None] - mean) ** 2 * jnp.exp(-log_variance), axis=2)
    if not proper:
        return jnp.sum(weights * 0.5 * (np.log(2 * np.pi) + squares), axis=-1)
    log_density = -0.5 * (tokens.shape[-1] * np.log(2 * np.pi) + squares)
    return -jax.nn.logsumexp(log_density + jnp.log(weights + 1e-30), axis=-1)


def vtadl(
    *,
    patch: int = 64,
    dim: int = 512,
    depth: int = 6,
    heads: int = 8,
    hidden: int = 1024,
    capsule_side: int = 8,
    widths: Sequence[int] = (16, 32, 32, 16, 8),
    kernels: Sequence[int] = (3, 9, 7, 9, 6, 11),
    strides: Sequence[int] = (2, 3, 5, 2, 1, 1),
    paddings: Sequence[int] = (1, 1, 1, 0, 0, 0),
    gaussians: int = 10,
    proper: bool = True,
    noise: float = 0.2,
    mse_weight: float = 5.0,
    ssim_weight: float = 0.5,
    sigma: float = 4.0,
    epochs: int = 400,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-4,
) -> Detector:
    """Builds VT-ADL.

    Map: negative log-likelihood of the patch's token under the mixture, smoothed.

    Args:
      patch: side of a patch in pixels.
      dim, depth, heads, hidden: width, blocks, attention heads and feed-forward width of the transformer.
      capsule_side: side of the decoder's input, which has 8 channels.
      widths, kernels, strides, paddings: of the decoder's transposed convolutions, which make 512 x 512 pixels of 8 x 8.
      gaussians: distributions in the mixture.
      proper: the log-likelihood of the mixture; False: what the authors' code takes for it (`mixture_nll`).
      noise: standard deviation of the noise on the tokens in training.
      mse_weight, ssim_weight: of the loss 5 MSE + .5 (1 - SSIM) + NLL (eq. 4); the NLL is summed over tokens.
      sigma: of the Gaussian that smooths the map, in pixels; 0: off.
      epochs, learning_rate, weight_decay: Adam's, with the L2 term in the gradient. The authors keep the epoch of the least
        training loss; here it is the last.

    The image's score is MSE - SSIM + the largest NLL of a token. The authors' code adds the SSIM, so that a better restored
    image scores higher.

    Raises:
      UserError: an option out of its range, or an image that patches do not fill or the decoder does not make.
    """
    check_options("[1, inf)", patch=patch, depth=depth, heads=heads, hidden=hidden, capsule_side=capsule_side)
    check_options("[1, inf)", gaussians=gaussians, epochs=epochs)
    check_options("[0, inf)", noise=noise, mse_weight=mse_weight, ssim_weight=ssim_weight, sigma=sigma)
    check_options("[0, inf)", weight_decay=weight_decay)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_multiple(CAPSULE, dim=dim)
    parts = [tuple(each) for each in (widths, kernels, strides, paddings)]
    check_options(
        "[1, inf)", widths=min(parts[0], default=1), kernels=min(parts[1], default=0), strides=min(parts[2], default=0)
    )
    check_options("[0, inf)", paddings=min(parts[3], default=0))
    if dim % heads or len({len(parts[0]) + 1, *map(len, parts[1:])}) > 1:
        raise UserError(
            "detector.dim must be a multiple of detector.heads, and kernels, strides and paddings one longer than widths; got "
            f"{dim}, {heads} and lengths of {[len(each) for each in parts]}"
        )
    encoder, density = Encoder(patch, dim, depth, heads, hidden), MixtureDensity(gaussians)
    restorer = Restorer((capsule_side, capsule_side), *parts)

    def init_variables(key, frozen, spec):
        del frozen
        height, width, _ = spec.image_shape
        made = capsule_side
        for kernel, stride, padding in zip(*parts[1:], strict=True):
            made = (made - 1) * stride - 2 * padding + kernel
        if height % patch or width % patch or (height, width) != (made, made):
            raise UserError(
                f"vtadl's decoder makes {made} x {made} pixels, and patches have {patch}; got images of {height} x {width}: "
                "set data.crop, detector.patch or the decoder's strides"
            )
        keys, image = jax.random.split(key, 3), jnp.zeros((1, *spec.image_shape))
        tokens = jnp.zeros((1, (height // patch) * (width // patch), dim))
        first, second = encoder.init(keys[0], image), restorer.init(keys[1], tokens)
        third = density.init(keys[2], tokens)
        trees = {"encoder": first["params"], "restorer": second["params"], "density": third["params"]}
        return {"params": trees, "batch_stats": second.get("batch_stats", {})}

    def call(variables, image, valid=None, key=None):
        """What is restored, the changed statistics, and the NLL of each token."""
        params = variables["params"]
        tokens = encoder.apply({"params": params["encoder"]}, image)
        if key is not None:
            tokens += noise * noise_like(key, tokens)
        inner = {"params": params["restorer"], "batch_stats": variables["batch_stats"]}
        restored, changed = restorer.apply(inner, tokens, valid, mutable="batch_stats")
        return restored, changed, mixture_nll(tokens, *density.apply({"params": params["density"]}, tokens), proper)

    def loss(key, variables, frozen, batch):
        del frozen
        restored, changed, nll = call(variables, batch.image, batch.valid, key if noise else None)
        each = {
            "mse": mse_weight * losses.mse(restored, batch.image),
            "ssim": ssim_weight * losses.ssim(restored, batch.image),
            "nll": jnp.sum(nll, axis=1),
        }
        info = {f"loss_{name}": losses.mean(value, batch.valid) for name, value in each.items()}
        return sum(info.values()), (changed, info)

    def predict(variables, frozen, batch):
        del frozen
        restored, _, nll = call(variables, batch.image)
        height, width = batch.image.shape[1:3]
        maps = nll.reshape(-1, height // patch, width // patch)
        score = losses.mse(restored, batch.image) + losses.ssim(restored, batch.image) - 1 + nll.max(axis=1)
        return Prediction(score, ops.anomaly_map(maps, (height, width), sigma, align_corners=True))

    return gradient(init_variables, loss, predict, lambda spec: adam_with_l2(learning_rate, weight_decay), epochs=epochs)
