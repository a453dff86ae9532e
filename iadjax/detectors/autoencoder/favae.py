"""FAVAE: "Anomaly localization by modeling perceptual features" (Dehaene & Eline, 2020, arXiv 2008.05369).

A variational autoencoder restores the image, and its decoder's activations restore the features of a frozen network. The map is
the error of both.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.backbones.backbone import normalize
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.nn.autoencoder import GRID, halvings
from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm
from iadjax.nn.transposed import ConvTranspose
from iadjax.parallel.axis import own_rows

__all__ = ["FeatureAugmentedVae", "favae"]


class FeatureAugmentedVae(nn.Module):
    """The autoencoder and its adapters, with the names of the known re-implementation.

    Attributes:
      width: channels of the first convolution; deeper ones have two and four times as many.
      latent: numbers of a code.
      depths: channels of the frozen network's levels, the finest first.
    """

    width: int
    latent: int
    depths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, noise: jax.Array, valid: jax.Array | None = None):
        """`[B, side, side, 3]` and noise `[B, latent]` to

        the restored image, the restored levels (the finest first, of sides side / 2, side / 4 ...), mean and log variance.
        """
        n, number = self.width, halvings(x.shape[1])

        def unit(layer, x, name, position):
            y = layer(x)
            return y, nn.leaky_relu(BatchNorm(name=f"{name}_{position + 1}")(y, valid), 0.2)

        # (channels, whether the grid is halved)
        layers = [(n, True)] * (number - 2) + [(2 * n, False), (2 * n, True), (4 * n, False), (4 * n, True)]
        for i, (features, halve) in enumerate([*layers, (4 * n, False), (32, False)]):
            name = f"encode_{3 * i}"
            layer = Conv(features, 4, 2, 1, name=name) if halve else Conv(features, name=name)
            _, x = unit(layer, x, "encode", 3 * i)
        code = Conv(2 * self.latent, GRID, padding=0, name=f"encode_{3 * len(layers) + 6}")(x)[:, 0, 0]
        mean, log_variance = jnp.split(code, 2, axis=-1)
        z = mean + jnp.exp(log_variance / 2) * noise

        _, x = unit(ConvTranspose(32, GRID, 1, 0, name="decode_1"), z[:, None, None], "decode", 1)
        widths, taps, position = [4 * n, 2 * n, *[n] * number][: number - 1], [], 1
        plain = [4 * n, 4 * n]
        for i, features in enumerate(widths):
            # plain convolutions first, where the channels change
            for each in plain if i == 0 else [features] * (features != widths[i - 1]):
                position += 3
                _, x = unit(ConvTranspose(each, 3, 1, 1, name=f"decode_{position}"), x, "decode", position)
            position += 3
            y, x = unit(ConvTranspose(features, name=f"decode_{position}"), x, "decode", position)
            taps.append(y)
        image = nn.sigmoid(ConvTranspose(3, name=f"decode_{position + 3}")(x))

        levels = []
        for i, depth in enumerate(self.depths):
            # before BatchNorm, as in the known code
            y = taps[-1 - i]
            y = nn.relu(Conv(y.shape[-1], 1, name=f"adapter_{i}_0")(y))
            levels.append(Conv(depth, 1, name=f"adapter_{i}_2")(y))
        return image, levels, mean, log_variance


def favae(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("relu2_2", "relu3_3", "relu4_3"),
    width: int = 128,
    latent: int = 100,
    beta: float = 1.0,
    normalized: bool = False,
    sigma: float = 4.0,
    epochs: int = 100,
    learning_rate: float = 1e-4,
) -> Detector:
    """Builds FAVAE.

    Map: squared errors of the restored image and of the restored features, each summed over channels, added and smoothed.

    Args:
      backbone: frozen network, VGG-16 in the paper; its variables are `frozen["backbone"]`.
      layers: its levels, the finest first, activated. They are restored from the decoder's activations of the last sizes but
        one, which are resized if their grid differs.
      width: channels of the autoencoder's first convolution.
      latent: numbers of a code.
      beta: weight of the KL divergence.
      normalized: whether the image that is seen and restored has zero mean and unit variance, as in the known re-implementation
        (open-iad), whose decoder ends in a sigmoid all the same. Otherwise it lies in [0, 1].
      sigma: of the Gaussian that smooths the map, in pixels; 0: off.
      epochs, learning_rate: Adam's. Open-iad has the rate 0.005 in its file and 1e-5 in its paper; 1e-4 is ours.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or images that are no squares of
        8 x 2^n pixels with n above the number of layers.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", width=width, latent=latent, epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", beta=beta, sigma=sigma)

    def embed(frozen, image):
        return backbone.features(frozen["backbone"], image, layers)

    def network(levels):
        return FeatureAugmentedVae(width, latent, tuple(level.shape[-1] for level in levels))

    def init_variables(key, frozen, spec):
        del frozen
        height, side = spec.image_shape[:2]
        if height != side or halvings(side) <= len(layers):
            raise UserError(
                f"favae needs squares of 8 x 2^n pixels, n above {len(layers)}, the number of layers; got {height} x {side}"
            )
        return network(spec.features).init(key, jnp.zeros((1, *spec.image_shape)), jnp.zeros((1, latent)))

    def errors(variables, batch, noise, **options):
        """Squared errors `[B, h, w]` of the image and of each level, moments of the code, and changed collections."""
        x = normalize(batch.image) if normalized else batch.image
        module = network(batch.features)
        out, changed = module.apply(variables, x, noise, **options, mutable=["batch_stats"])
        image, levels, mean, log_variance = out
        found = [jnp.sum((image - x) ** 2, axis=-1)]
        for restored, level in zip(levels, batch.features, strict=True):
            found.append(jnp.sum((ops.resize(restored, level.shape[1:3]) - level) ** 2, axis=-1))
        return found, mean, log_variance, changed

    def loss(key, variables, frozen, batch):
        del frozen
        noise = own_rows(lambda rows: jax.random.normal(key, (rows, latent)), len(batch.image))
        found, mean, log_variance, changed = errors(variables, batch, noise, valid=batch.valid)
        parts = {
            "loss_image": jnp.sum(found[0], axis=(1, 2)),
            "loss_features": sum(jnp.sum(each, axis=(1, 2)) for each in found[1:]),
            "loss_kl": beta * losses.kl_normal(mean, log_variance),
        }
        parts = {name: losses.mean(value, batch.valid) for name, value in parts.items()}
        return sum(parts.values()), (changed, parts)

    def predict(variables, frozen, batch):
        del frozen
        # the mean of the code, so that a score is always the same
        found, *_ = errors(variables, batch, jnp.zeros((len(batch.image), latent)))
        size = batch.image.shape[1:3]
        maps = sum(ops.anomaly_map(each, size) for each in found)
        maps = ops.gaussian_blur(maps, sigma) if sigma else maps
        return Prediction(jnp.max(maps, axis=(1, 2)), maps)

    def optimizer(spec):
        del spec
        return optax.adam(learning_rate)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs, needs_image=True)
