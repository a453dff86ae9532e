"""The U-Net of TransFusion (Fučka et al., ECCV 2024), with the names of the authors' code (MIT)."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.nn.adm import time_code
from iadjax.nn.attention import attend
from iadjax.nn.layers import Conv, linear
from iadjax.nn.norms import BatchNorm, group_norm
from iadjax.nn.transposed import ConvTranspose

__all__ = ["TransparencyUNet"]


class ResidualBlock(nn.Module):
    """Two convolutions with the code of the time between them, and a shortcut.

    Attributes:
      features: channels of the output.
    """

    features: int

    @nn.compact
    def __call__(self, x: jax.Array, code: jax.Array) -> jax.Array:
        y = Conv(self.features, name="conv1")(nn.silu(group_norm(x, "norm1")))
        y += linear(self.features, code.shape[-1], "time_emb")(code)[:, None, None]
        y = Conv(self.features, name="conv2")(nn.silu(group_norm(y, "norm2")))
        return y + (x if x.shape[-1] == self.features else Conv(self.features, 1, name="shortcut")(x))


class Attention(nn.Module):
    """Self-attention of all positions by one head of all channels, with a shortcut and without a norm."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        number, height, width, depth = x.shape
        tokens = x.reshape(number, height * width, 1, depth)
        parts = jnp.split(linear(3 * depth, depth, "projection")(tokens), 3, axis=-1)
        return x + linear(depth, depth, "output")(attend(*parts)).reshape(x.shape)


class TransparencyUNet(nn.Module):
    """Sees an image, a mask and a time; finds what is anomalous, the normal image, and the mask.

    Attributes:
      width: channels of the first convolution.
      multipliers: of each level's channels as multiples of those of the level before.
      attended: so many of the coarsest levels have attention after each block.
      blocks: residual blocks of each level on the way down; there is one more on the way up.
    """

    width: int = 64
    multipliers: Sequence[int] = (1, 2, 2, 2)
    attended: int = 2
    blocks: int = 2

    def _code(self, t: jax.Array) -> jax.Array:
        """Times `[B]` as `time_code`, then two linear layers: `[B, 4 width]`."""
        depth, code = 4 * self.width, time_code(t, self.width, inclusive=True)
        return linear(depth, depth, "time_emb_linear_2")(nn.silu(linear(depth, self.width, "time_emb_linear_1")(code)))

    @nn.compact
    def __call__(
        self, x: jax.Array, mask: jax.Array, t: jax.Array, valid: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Images `[B, H, W, C]`, masks `[B, H, W]` and times `[B]`; H and W are multiples of 2^(levels - 1).

        Args:
          x, mask, t: see above.
          valid: `[B]`, rows of a training batch that give statistics; None: the running ones serve.

        Returns:
          `(anomaly [B, H, W, C], normal [B, H, W, C], logits of the mask [B, H, W])`.
        """
        code, channels = self._code(t), x.shape[-1]
        # the authors' code of positions has one channel: the sine of the row's number
        rows = jnp.broadcast_to(jnp.sin(jnp.arange(x.shape[1], dtype=x.dtype))[:, None, None], (*x.shape[:3], 1))
        x = Conv(self.width, name="image_proj")(jnp.concatenate([x, mask[..., None], rows], axis=-1))

        def unit(x, features, level, name):
            x = ResidualBlock(features, name=f"{name}_res")(x, code)
            return Attention(name=f"{name}_attn")(x) if level >= len(self.multipliers) - self.attended else x

        skips, features = [x], self.width
        for level, multiplier in enumerate(self.multipliers):
            features *= multiplier
            for _ in range(self.blocks):
                x = unit(x, features, level, f"down_{len(skips) - 1}")
                skips.append(x)
            if level < len(self.multipliers) - 1:
                x = Conv(features, 3, 2, name=f"down_{len(skips) - 1}_conv")(x)
                skips.append(x)
        x = ResidualBlock(features, name="middle_res1")(x, code)
        x = Attention(name="middle_attn")(x)
        x = ResidualBlock(features, name="middle_res2")(x, code)
        number = 0
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for block in range(self.blocks + 1):
                features = features if block < self.blocks else features // multiplier
                x = unit(jnp.concatenate([x, skips.pop()], axis=-1), features, level, f"up_{number}")
                number += 1
            if level:
                x = ConvTranspose(features, name=f"up_{number}_conv")(x)
                number += 1
        anomaly = Conv(channels, name="final")(nn.silu(group_norm(x, "norm", 8)))
        # these two see the features without that norm
        normal = Conv(channels, name="final_mean")(x)
        logits = Conv(1, name="final_seg_conv")(nn.silu(BatchNorm(name="final_seg_norm")(x, valid)))
        return anomaly, normal, logits[..., 0]
