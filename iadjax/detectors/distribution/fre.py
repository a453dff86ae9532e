"""FRE: "A Fast Method For Anomaly Detection And Segmentation" (Ndiour et al., 2022, arXiv 2211.12650).

A linear autoencoder whose decoder is the transpose of its encoder restores the features of normal images. The error of
reconstruction is the score: at each position for maps, and of the whole image.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.subspace import pooled_level

__all__ = ["TiedAutoencoder", "fre"]


class TiedAutoencoder(nn.Module):
    """x -> W^T (W x + b) + c (section 3.1), over all positions and channels of an image at once.

    Attributes:
      latent: rows of W.
    """

    latent: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, C]` to the same shape."""
        shape = x.shape[1:]
        # Xavier's rule for the matrix that takes all of h w C to the latent vector
        flat = nn.initializers.xavier_uniform()
        init = lambda key: flat(key, (shape[0] * shape[1] * shape[2], self.latent)).reshape(*shape, self.latent)  # noqa: E731
        weight = self.param("weight", init)
        inner = self.param("encoder_bias", nn.initializers.zeros, (self.latent,))
        outer = self.param("decoder_bias", nn.initializers.zeros, shape)
        z = jnp.einsum("bhwc,hwck->bk", x, weight)
        return jnp.einsum("bk,hwck->bhwc", z + inner[None], weight) + outer[None]


def fre(
    backbone: Backbone,
    *,
    layer: str = "layer3",
    pooling: int = 2,
    latent: int = 220,
    epochs: int = 220,
    learning_rate: float = 1e-3,
) -> Detector:
    """Builds FRE.

    Map: squared error of the reconstructed features, summed over channels.

    The best such autoencoder is a PCA, which `dfm` computes in closed form. Constants are anomalib's.

    Args:
      backbone: frozen network; its variables are `frozen["backbone"]`.
      layer: its level.
      pooling: side of the windows whose means the autoencoder sees, without overlap.
      latent: dimensions of the subspace.
      epochs, learning_rate: Adam's.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    (layer,) = check_layers(backbone, (layer,))
    check_options("[1, inf)", pooling=pooling, latent=latent, epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    network = TiedAutoencoder(latent)

    def embed(frozen, image):
        return pooled_level(backbone, frozen["backbone"], image, layer, pooling)

    def init_variables(key, frozen, spec):
        del frozen
        return network.init(key, jnp.zeros(spec.features.shape))

    def loss(key, variables, frozen, batch):
        del key, frozen
        restored = network.apply(variables, batch.features)
        return losses.mean(losses.mse(restored, batch.features), batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        del frozen
        # section 3.2: the error, and its map
        error = jnp.sum((batch.features - network.apply(variables, batch.features)) ** 2, axis=-1)
        return Prediction(jnp.sum(error, axis=(1, 2)), ops.anomaly_map(error, batch.image.shape[1:3]))

    def optimizer(spec):
        del spec
        return optax.adam(learning_rate)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
