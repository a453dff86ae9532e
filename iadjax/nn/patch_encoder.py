"""Encoders of small and large patches, and a classifier of their relative position (Patch SVDD, Yi & Yoon, ACCV 2020)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.layers import Conv, linear, uniform_bias, uniform_fan_in

__all__ = ["BigEncoder", "PositionClassifier", "SmallEncoder"]


class SmallEncoder(nn.Module):
    """f_small: 3 x 3 convolutions without padding, the first of stride 2, with the names of the authors' code.

    A patch of side 4 n becomes one embedding, where n is the number of convolutions. A larger image becomes the embeddings of
    all its patches at a stride of 2.

    Attributes:
      widths: channels of each convolution; the last are those of the embedding.
    """

    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, 3]` to `[B, h, w, D]`."""
        for i, width in enumerate(self.widths, start=1):
            x = Conv(width, stride=2 if i == 1 else 1, padding=0, name=f"conv{i}")(x)
            x = jnp.tanh(x) if i == len(self.widths) else nn.leaky_relu(x, 0.1)
        return x


class BigEncoder(nn.Module):
    """g_big: the embeddings of a patch's four quarters to that of the patch (section 3.3).

    Attributes:
      hidden: channels between its two convolutions.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, 2, 2, D]` to `[B, D]`."""
        depth = x.shape[-1]
        x = nn.leaky_relu(Conv(self.hidden, 2, padding=0, name="conv1")(x), 0.1)
        return jnp.tanh(Conv(depth, 1, name="conv2")(x))[:, 0, 0]


class Directions(nn.Module):
    """A linear layer in which the weights of each input have unit length over the outputs.

    Attributes:
      features: outputs.
      fixed: whether the weights have no gradient.
    """

    features: int
    fixed: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = ops.unit(self.param("kernel", uniform_fan_in, (x.shape[-1], self.features)))
        bias = self.param("bias", uniform_bias(x.shape[-1]), (self.features,))
        return jnp.matmul(x, jax.lax.stop_gradient(kernel) if self.fixed else kernel) + ops.per_channel(bias, x)


class PositionClassifier(nn.Module):
    """C_phi: from the difference of two embeddings to logits of the eight positions (section 3.2).

    Attributes:
      hidden: width of its two hidden layers.
      fixed: see `Directions`.
      classes: positions.
    """

    hidden: int
    fixed: bool
    classes: int = 8

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, D]` to `[B, 8]`."""
        for name in ("fc1", "fc2"):
            x = nn.leaky_relu(linear(self.hidden, x.shape[-1], name)(x), 0.1)
        return Directions(self.classes, self.fixed, name="fc3")(x)
