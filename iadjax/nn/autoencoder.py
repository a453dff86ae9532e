"""The convolutional encoder and decoder of Bergmann et al. (VISAPP 2019, table 1): a square image to one vector and back."""

import functools

import flax.linen as nn
import jax

from iadjax.nn.layers import Conv
from iadjax.nn.transposed import ConvTranspose

__all__ = ["GRID", "Decoder", "Encoder", "halvings"]

# side of the grid that becomes one vector
GRID = 8

_glorot = nn.initializers.glorot_uniform()
_conv = functools.partial(Conv, kernel_init=_glorot)
_deconv = functools.partial(ConvTranspose, kernel_init=_glorot)


def halvings(side: int) -> int:
    """How often an image is halved down to the grid of 8 x 8; 0 where its side is no 8 x 2^n with n >= 3."""
    number = (side // GRID).bit_length() - 1
    return number if number >= 3 and side == GRID << number else 0


class Encoder(nn.Module):
    """Strided 4 x 4 and plain 3 x 3 convolutions, then one of 8 x 8: `[B, H, H, C]` to `[B, latent]`.

    Attributes:
      width: channels of the first convolutions, 32 in the paper.
      latent: d, numbers of the vector.
    """

    width: int
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        n = self.width
        layers = [(n, 4)] * (halvings(x.shape[1]) - 2) + [(n, 3), (2 * n, 4), (2 * n, 3), (4 * n, 4), (2 * n, 3), (n, 3)]
        for i, (features, kernel) in enumerate(layers, start=1):
            # kernels of 4 have a stride of 2
            x = nn.leaky_relu(_conv(features, kernel, 2 if kernel == 4 else 1, 1, name=f"conv{i}")(x), 0.2)
        return _conv(self.latent, GRID, padding=0, name="latent")(x)[:, 0, 0]


class Decoder(nn.Module):
    """The reverse of `Encoder`: `[B, latent]` to an image `[B, side, side, channels]` in [0, 1].

    Attributes:
      width: as the encoder's.
      side: of the image.
      channels: of the image.
    """

    width: int
    side: int
    channels: int = 3

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        n = self.width
        x = nn.leaky_relu(_deconv(n, GRID, 1, 0, name="grid")(z[:, None, None]), 0.2)
        layers = [(2 * n, 3), (4 * n, 3), (2 * n, 4), (2 * n, 3), (n, 4), (n, 3)] + [(n, 4)] * (halvings(self.side) - 3)
        for i, (features, kernel) in enumerate(layers, start=1):
            layer = _conv(features, name=f"conv{i}") if kernel == 3 else _deconv(features, name=f"conv{i}")
            x = nn.leaky_relu(layer(x), 0.2)
        return nn.sigmoid(_deconv(self.channels, name="image")(x))
