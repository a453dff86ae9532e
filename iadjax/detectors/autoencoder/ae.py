"""AE-L2 and AE-SSIM: "Improving Unsupervised Defect Segmentation by Applying Structural Similarity to Autoencoders" (Bergmann
et al., VISAPP 2019, arXiv 1807.02011).

A convolutional autoencoder restores patches of normal images. An image is anomalous where its restored patches differ from it,
pixel by pixel or in their structure.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses, ops
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.autoencoder import Decoder, Encoder, halvings
from iadjax.synthesis.patches import random_patches

__all__ = ["Autoencoder", "ae", "residual", "restored_image"]


class Autoencoder(nn.Module):
    """Table 1, for `[B, side, side, 3]` in [0, 1].

    Attributes:
      width: channels of the first convolution.
      latent: d, numbers that a patch is reduced to.
    """

    width: int
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        z = Encoder(self.width, self.latent, name="encoder")(x)
        return Decoder(self.width, x.shape[1], name="decoder")(z)


def residual(x: jax.Array, restored: jax.Array, loss: str, window: int = 11, uniform: bool = False) -> jax.Array:
    """The residual map (section 3.3): 1 - SSIM, or the absolute difference; both are the mean over channels.

    Args:
      x, restored: `[B, H, W, 3]` in [0, 1].
      loss: "ssim" or "l2".
      window: K, side of the window of SSIM (eq. 3).
      uniform: equal weights in it, mirrored pixels outside the image and unbiased variances, as scikit-image has them;
        otherwise a Gaussian of 1.5 pixels and zeros outside.

    Returns:
      `[B, H, W]`.
    """
    if loss == "l2":
        return jnp.mean(jnp.abs(x - restored), axis=-1)
    options = {"sigma": 0.0, "mirror": True, "unbiased": True} if uniform else {}
    return 1 - jnp.mean(ops.ssim(x, restored, window, **options), axis=-1)


def restored_image(network, x: jax.Array, patch: int, stride: int) -> jax.Array:
    """The mean of the restored patches that cover each pixel of `[B, H, W, 3]` (section 4.1); the last ones end at the border.

    Args:
      network: `[N, patch, patch, 3]` to the same shape.
      x: the images, with sides of at least `patch`.
      patch, stride: side of the patches, and pixels between them.
    """
    rows, columns = ([*range(0, side - patch, stride), side - patch] for side in x.shape[1:3])
    corners = [(row, column) for row in rows for column in columns]
    patches = jnp.concatenate([x[:, i : i + patch, j : j + patch] for i, j in corners])
    parts = network(patches).reshape(len(corners), *x[:, :patch, :patch].shape)
    total, number = jnp.zeros_like(x), np.zeros(x.shape[1:3], np.float32)
    for (i, j), part in zip(corners, parts, strict=True):
        total = total.at[:, i : i + patch, j : j + patch].add(part)
        number[i : i + patch, j : j + patch] += 1
    return total / jnp.asarray(number, x.dtype)[None, :, :, None]


def ae(
    *,
    loss: str = "ssim",
    width: int = 32,
    latent: int = 100,
    patch: int = 128,
    stride: int = 32,
    window: int = 11,
    uniform: bool = False,
    crops: int = 8,
    max_degrees: float = 45.0,
    rotate_prob: float = 0.3,
    flip_prob: float = 0.3,
    steps: int = 15600,
    learning_rate: float = 2e-4,
    weight_decay: float = 1e-5,
) -> Detector:
    """Builds AE-SSIM, or AE-L2 with `loss="l2"`.

    Map: 1 - SSIM of the image and the restored one; with "l2" their absolute difference. Both are the mean over channels.

    Args:
      loss: what is trained and what is measured: "ssim" (eq. 2) or "l2" (eq. 1).
      width: channels of the first convolution.
      latent: d, numbers that a patch is reduced to.
      patch: side of the patches, 8 x 2^n pixels, n >= 3. With the side of the image the network sees it whole.
      stride: pixels between the patches whose restorations are averaged.
      window: side of the window of SSIM, odd.
      uniform: the map's SSIM is that of the known re-implementation, see `residual`; trained is the Gaussian one.
      crops: patches that are drawn of each image of a batch. 16 images of 8 are the paper's batch of 128.
      max_degrees, rotate_prob: largest rotation and its probability, as in the known re-implementation.
      flip_prob: probability of each of the two flips.
      steps: batches. The paper has 200 epochs of 10,000 patches.
      learning_rate, weight_decay: Adam's, the L2 term in the gradient.

    Raises:
      UserError: an option out of its range; in fitting and prediction: an image that is smaller than a patch.
    """
    if loss not in ("ssim", "l2"):
        raise UserError(f"detector.loss must be 'ssim' or 'l2', got {loss!r}")
    check_options("[1, inf)", width=width, latent=latent, stride=stride, crops=crops, steps=steps)
    check_options("[0, inf)", max_degrees=max_degrees, weight_decay=weight_decay)
    check_options("[0, 1]", rotate_prob=rotate_prob, flip_prob=flip_prob)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_odd(window=window)
    if not halvings(patch):
        raise UserError(f"detector.patch must be 64, 128 or another 8 x 2^n, got {patch}")
    network = Autoencoder(width, latent)

    def augment(rng, image, draw):
        del draw
        options = {"max_degrees": max_degrees, "rotate_prob": rotate_prob, "flip_prob": flip_prob}
        return {"patches": random_patches(rng, image, crops, patch, **options)}

    def init_variables(key, frozen, spec):
        del frozen
        if min(spec.image_shape[:2]) < patch:
            raise UserError(f"ae needs images of at least {patch} pixels, got {spec.image_shape[:2]}; lower detector.patch")
        return network.init(key, jnp.zeros((1, patch, patch, 3)))

    def objective(key, variables, frozen, batch):
        del key, frozen
        x = batch.extra["patches"].reshape(-1, patch, patch, 3)
        restored = network.apply(variables, x)
        values = losses.ssim(x, restored, window=window) if loss == "ssim" else losses.mse(x, restored)
        return losses.mean(jnp.mean(values.reshape(-1, crops), axis=1), batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        del frozen
        restored = restored_image(lambda x: network.apply(variables, x), batch.image, patch, stride)
        maps = residual(batch.image, restored, loss, window, uniform)
        return Prediction(jnp.max(maps, axis=(1, 2)), maps)

    def optimizer(spec):
        del spec
        return adam_with_l2(learning_rate, weight_decay)

    return gradient(init_variables, objective, predict, optimizer, steps=steps, augment=augment)
