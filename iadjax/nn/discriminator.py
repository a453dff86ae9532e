"""A linear adaptor of features and a discriminator of patches, with the names of SimpleNet's code (Liu et al., CVPR 2023)."""

import flax.linen as nn
import jax

from iadjax.nn.layers import uniform_bias
from iadjax.nn.norms import BatchNorm

__all__ = ["Adaptor", "Discriminator"]


def _dense(features: int, fan_in: int, name: str) -> nn.Dense:
    """Weights are drawn by Xavier's rule, biases by PyTorch's default, as in the authors' code."""
    return nn.Dense(features, kernel_init=nn.initializers.xavier_normal(), bias_init=uniform_bias(fan_in), name=name)


class Adaptor(nn.Module):
    """One linear layer (SimpleNet, section 3.2)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return _dense(x.shape[-1], x.shape[-1], "layers_0fc")(x)


class Discriminator(nn.Module):
    """Linear, BatchNorm, leaky ReLU, linear without bias (SimpleNet, section 3.4): `[..., C]` to `[...]`.

    Attributes:
      hidden: channels inside.
    """

    hidden: int

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> jax.Array:
        x = _dense(self.hidden, x.shape[-1], "body_block1_0")(x)
        x = nn.leaky_relu(BatchNorm(name="body_block1_1")(x, valid), 0.2)
        return nn.Dense(1, use_bias=False, kernel_init=nn.initializers.xavier_normal(), name="tail")(x)[..., 0]
