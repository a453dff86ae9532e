"""VAE: "Unsupervised Anomaly Localization using Variational Auto-Encoders" (Zimmerer et al., MICCAI 2019, arXiv 1907.02796).

A variational autoencoder (Kingma & Welling, ICLR 2014) models normal images. The evidence lower bound is the score of an image.
A pixel is anomalous where it is restored badly, and where a change of it would bring the code nearer to the prior.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import losses, ops
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import adam_with_l2
from iadjax.errors import UserError
from iadjax.nn.autoencoder import Decoder, Encoder, halvings
from iadjax.parallel.axis import own_rows

__all__ = ["VariationalAutoencoder", "vae"]

MAPS = ("error", "elbo", "kl", "combined")


class VariationalAutoencoder(nn.Module):
    """The layers of Bergmann et al. (VISAPP 2019), for square images `[B, side, side, 3]` in [0, 1].

    Attributes:
      width: channels of the first convolution.
      latent: numbers of a code.
    """

    width: int
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The restored image of z = mean + exp(log_variance / 2) noise, and mean and log_variance `[B, latent]`."""
        mean, log_variance = jnp.split(Encoder(self.width, 2 * self.latent, name="encoder")(x), 2, axis=-1)
        z = mean + jnp.exp(log_variance / 2) * noise
        return Decoder(self.width, x.shape[1], name="decoder")(z), mean, log_variance


def vae(
    *,
    width: int = 32,
    latent: int = 100,
    beta: float = 1.0,
    map: str = "combined",
    score: str = "elbo",
    sigma: float = 4.0,
    epochs: int = 200,
    learning_rate: float = 2e-4,
    weight_decay: float = 1e-5,
) -> Detector:
    """Builds a variational autoencoder with its gradient map.

    Map: absolute error of the restored image times the absolute gradient of the KL divergence, smoothed; without a unit.

    The network and its training are those of `ae`, on whole images. Prediction takes the mean of the code, so that a score is
    always the same. With `map="error"` the map is the absolute error, with "elbo" or "kl" an absolute gradient; all are means
    over channels.

    Args:
      width: channels of the first convolution.
      latent: numbers of a code.
      beta: weight of the KL divergence in the bound (Higgins et al., ICLR 2017): up to a factor, the variance of the decoder's
        pixels. With 1 little is restored beside the mean image.
      map: "error": |x - y|; "elbo": |d ELBO / dx|; "kl": |d KL / dx|; "combined": |x - y| |d KL / dx|, the paper's proposal.
      score: "elbo": the negative bound of the whole image; "map": the largest number of the map.
      sigma: of the Gaussian that smooths the map, in pixels; 0: off. Constants are ours, as the paper's are for other images.
      epochs, learning_rate, weight_decay: Adam's, with the L2 term in the gradient.

    Raises:
      UserError: an option out of its range, or images that are no squares of 8 x 2^n pixels.
    """
    if map not in MAPS or score not in ("elbo", "map"):
        raise UserError(f"detector.map must be one of {', '.join(MAPS)} and score elbo or map; got {map!r}, {score!r}")
    check_options("[1, inf)", width=width, latent=latent, epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", beta=beta, sigma=sigma, weight_decay=weight_decay)
    network = VariationalAutoencoder(width, latent)

    def init_variables(key, frozen, spec):
        del frozen
        height, side = spec.image_shape[:2]
        if height != side or not halvings(side):
            raise UserError(f"vae needs squares of 64, 128 or another 8 x 2^n pixels, got {height} x {side}; set data.resize")
        return network.init(key, jnp.zeros((1, *spec.image_shape)), jnp.zeros((1, latent)))

    def bound(variables, x, noise):
        """The negative bound of each image, its KL divergence, and the restored image."""
        restored, mean, log_variance = network.apply(variables, x, noise)
        return losses.negative_elbo(x, restored, mean, log_variance, beta), losses.kl_normal(mean, log_variance), restored

    def loss(key, variables, frozen, batch):
        del frozen
        noise = own_rows(lambda rows: jax.random.normal(key, (rows, latent)), len(batch.image))
        value, kl, _ = bound(variables, batch.image, noise)
        return losses.mean(value, batch.valid), ({}, {"loss_kl": losses.mean(kl, batch.valid)})

    def predict(variables, frozen, batch):
        del frozen
        x, code = batch.image, jnp.zeros((len(batch.image), latent))

        def of_image(x):
            value, kl, restored = bound(variables, x, code)
            # rows do not see each other: the gradient of the sum holds those of all
            return jnp.sum(value if map == "elbo" else kl), (value, restored)

        # what "error" does not need is not computed: compilation leaves it out
        (_, (value, restored)), slope = jax.value_and_grad(of_image, has_aux=True)(x)
        error = x - restored
        maps = jnp.mean(jnp.abs({"error": error, "combined": error * slope}.get(map, slope)), axis=-1)
        maps = ops.gaussian_blur(maps, sigma) if sigma else maps
        return Prediction(value if score == "elbo" else jnp.max(maps, axis=(1, 2)), maps)

    def optimizer(spec):
        del spec
        return adam_with_l2(learning_rate, weight_decay)

    return gradient(init_variables, loss, predict, optimizer, epochs=epochs)
