"""Networks of strided convolutions, as DCGAN has them (Radford et al., ICLR 2016): encoder, decoder, discriminator."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.errors import UserError
from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm
from iadjax.nn.transposed import ConvTranspose

__all__ = ["Decoder", "Discriminator", "Encoder", "about_one", "check_square"]

_normal = nn.initializers.normal(0.02)


def check_square(name: str, shape: Sequence[int], least: int) -> None:
    """A UserError where the detector `name` cannot take images `(H, W, C)`: square ones, whose side is a power of two."""
    height, side, _ = shape
    if height != side or side < least or side & (side - 1):
        raise UserError(
            f"{name} takes square images whose side is a power of two, at least {least}; got {height} x {side}: set data.resize"
        )


def about_one(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """Scales of a BatchNorm, from N(1, 0.02^2)."""
    return 1 + 0.02 * jax.random.normal(key, shape, dtype)


def _conv(features: int, name: str, kernel: int = 4, stride: int = 2, padding: int = 1) -> Conv:
    return Conv(features, kernel, stride, padding, bias=False, kernel_init=_normal, name=name)


def _conv_transpose(features: int, name: str, stride: int = 2, padding: int = 1) -> ConvTranspose:
    return ConvTranspose(features, 4, stride, padding, bias=False, kernel_init=_normal, name=name)


def _norm(x: jax.Array, valid: jax.Array | None, name: str) -> jax.Array:
    return BatchNorm(about_one, name=name)(x, valid)


class Encoder(nn.Module):
    """Halves a square image to 4 x 4 positions, doubling the channels, and ends in one vector.

    Attributes:
      width: channels after the first convolution.
      latent: length of the vector.
      extra_layers: further convolutions before the halving goes on.
      padding: of the first convolution.
    """

    width: int
    latent: int
    extra_layers: int = 0
    padding: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        """`[B, H, H, C]` to `[B, latent]`; `valid` as that of `BatchNorm`."""
        x = nn.leaky_relu(_conv(self.width, "initial_conv", padding=self.padding)(x), 0.2)
        for i in range(self.extra_layers):
            x = _conv(self.width, f"extra_{i}_conv", 3, 1)(x)
            x = nn.leaky_relu(_norm(x, valid, f"extra_{i}_batchnorm"), 0.2)
        while x.shape[1] > 4:
            features = 2 * x.shape[-1]
            x = _conv(features, f"pyramid_{features}_conv")(x)
            x = nn.leaky_relu(_norm(x, valid, f"pyramid_{features}_batchnorm"), 0.2)
        return _conv(self.latent, "final_conv", padding=0)(x)[:, 0, 0]


class Decoder(nn.Module):
    """The mirror image of `Encoder`: a vector to a square image in [-1, 1].

    Attributes:
      width: channels before the last convolution.
      side: of the image, a power of two.
      extra_layers: further convolutions before the last doubling.
      slope: of the ReLU after these for negative numbers.
    """

    width: int
    side: int
    extra_layers: int = 0
    slope: float = 0.0

    @nn.compact
    def __call__(self, z: jax.Array, valid: jax.Array | None) -> jax.Array:
        """`[B, latent]` to `[B, side, side, 3]`."""
        features = self.width * self.side // 8
        x = _conv_transpose(features, f"initial_{features}_convt", 1, 0)(z[:, None, None])
        x = nn.relu(_norm(x, valid, f"initial_{features}_batchnorm"))
        while features > self.width:
            features //= 2
            x = _conv_transpose(features, f"pyramid_{features}_convt")(x)
            x = nn.relu(_norm(x, valid, f"pyramid_{features}_batchnorm"))
        for i in range(self.extra_layers):
            x = _norm(_conv(features, f"extra_{i}_conv", 3, 1)(x), valid, f"extra_{i}_batchnorm")
            x = nn.leaky_relu(x, self.slope)
        return jnp.tanh(_conv_transpose(3, "final_convt")(x))


class Discriminator(nn.Module):
    """The encoder with one number instead of a vector; its layers have their positions in a sequence as names.

    Attributes:
      width: channels after the first convolution.
      extra_layers: further convolutions before the halving goes on.
      padding: of the first convolution.
      norm: whether BatchNorm follows the others. A critic with a gradient penalty has none, as its rows may not mix.
    """

    width: int
    extra_layers: int = 0
    padding: int = 1
    norm: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """`[B, H, H, C]` to logits `[B]`, positive for real images, and the features f `[B, 4, 4, D]` before them."""
        x, position = nn.leaky_relu(_conv(self.width, "features_0", padding=self.padding)(x), 0.2), 2
        extra = self.extra_layers
        while extra or x.shape[1] > 4:
            features, kernel, stride = (x.shape[-1], 3, 1) if extra else (2 * x.shape[-1], 4, 2)
            x = _conv(features, f"features_{position}", kernel, stride)(x)
            x = nn.leaky_relu(_norm(x, valid, f"features_{position + 1}") if self.norm else x, 0.2)
            extra, position = max(0, extra - 1), position + 3
        return _conv(1, "classifier_0", padding=0)(x)[:, 0, 0, 0], x
