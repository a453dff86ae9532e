"""Networks that restore the codes of a discrete autoencoder and find what changed (DSR, Zavrtanik et al., ECCV 2022)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.layers import Conv
from iadjax.nn.quantized import Decoder
from iadjax.nn.transposed import ConvTranspose
from iadjax.nn.unet import FACTORS, InstanceUNet, instance_unit

__all__ = ["Restoration"]

_init = nn.initializers.normal(0.02)

# channels of both convolutions of each halving of the decoder, as multiples of the codes'
_DOUBLED = ((1, 2), (2, 4))


class ObjectDecoder(nn.Module):
    """The object-specific appearance decoder (section 3.2): `[B, h, w, C]`, codes of both levels, to `[B, 4 h, 4 w, 3]`."""

    width: int
    layers: int
    hidden: int
    inner: int

    @nn.compact
    def __call__(self, x):
        depth = x.shape[-1]
        for block, (first, second) in enumerate(_DOUBLED, start=1):
            x = instance_unit(x, first * depth, f"block{block}_0", _init)
            x = ops.block_max(instance_unit(x, second * depth, f"block{block}_3", _init), 2)
        x = Conv(self.inner, 1, kernel_init=_init, name="pre_vq_conv")(x)
        for block in range(1, 1 + len(_DOUBLED)):
            x = nn.relu(ConvTranspose(self.inner, kernel_init=_init, name=f"upblock{block}")(x))
        return Decoder(self.width, self.layers, self.hidden, _init, name="decoder")(x)


class Restoration(nn.Module):
    """The networks of the second phase, with the names of the authors' script.

    Attributes:
      dimension: of the codes, and width of the subspace restriction modules.
      width, layers, hidden: of the object-specific decoder.
      inner: its channels at the coarsest grid.
      segment_width: of the anomaly detection module.
      levels: grids of the subspace restriction modules and of the anomaly detection module.
    """

    dimension: int
    width: int
    layers: int
    hidden: int
    inner: int
    segment_width: int
    levels: tuple[int, int] = (3, 4)

    def setup(self):
        restrict, segment = (FACTORS[:number] for number in self.levels)
        self.sub_lo, self.sub_hi = (InstanceUNet(self.dimension, self.dimension, restrict, False) for _ in range(2))
        self.decode = ObjectDecoder(self.width, self.layers, self.hidden, self.inner)
        self.seg = InstanceUNet(self.segment_width, 2, segment, kernel_init=_init)

    def restrict(self, low: jax.Array, high: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Features of both levels, restored to those of normal images (eq. 3)."""
        return self.sub_lo(low), self.sub_hi(high)

    def image(self, codes: jax.Array) -> jax.Array:
        """The object-specific decoder's image."""
        return self.decode(codes)

    def mask(self, restored: jax.Array, general: jax.Array) -> jax.Array:
        """Logits `[B, H, W, 2]` from the images of both decoders."""
        return self.seg(jnp.concatenate([restored, general], axis=-1))

    def __call__(self, low: jax.Array, high: jax.Array, codes: jax.Array, image: jax.Array):
        return self.restrict(low, high), self.image(codes), self.mask(image, image)
