"""ADM, the U-Net of diffusion models (Dhariwal & Nichol, NeurIPS 2021), with the names of AnoDDPM's copy of its code."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.errors import UserError
from iadjax.nn.attention import attend
from iadjax.nn.layers import Conv, Dropout, linear
from iadjax.nn.norms import group_norm
from iadjax.ops import block_mean, block_repeat

__all__ = ["AdmUNet", "check_sides", "default_multipliers", "time_code"]

_MULTIPLIERS = {512: (0.5, 1, 1, 2, 2, 4, 4), 256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4)}


def default_multipliers(side: int) -> tuple[float, ...]:
    """The widths of the levels for images of a side, as factors of the first one's, in the authors' code."""
    return _MULTIPLIERS.get(side, (1, 2, 3, 4))


def check_sides(shape: Sequence[int], multipliers: Sequence[float]) -> None:
    """A UserError where images of a shape `(H, W, C)` cannot be halved as often as the levels ask."""
    halvings = len(multipliers or default_multipliers(shape[0])) - 1
    if any(side % 2**halvings for side in shape[:2]):
        raise UserError(
            f"images of {shape[0]} x {shape[1]} cannot be halved {halvings} times, which detector.multipliers asks; set "
            f"data.resize to a multiple of {2**halvings}"
        )


def time_code(t: jax.Array, depth: int, *, inclusive: bool = False) -> jax.Array:
    """Times `[B]` as sines, then cosines, of t / 10000^(2 i / depth): `[B, depth]` float32.

    Args:
      t: the times.
      depth: even.
      inclusive: the last frequency is 1 / 10000.
    """
    half = depth // 2
    intervals = max(1, half - 1) if inclusive else half
    frequencies = jnp.asarray(np.exp(-np.arange(half) * math.log(10000) / intervals), jnp.float32)
    angles = t.astype(jnp.float32)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def _zero_conv(features: int, name: str) -> Conv:
    """A convolution whose weights begin at zero, so that a block begins as its shortcut."""
    return Conv(features, kernel_init=nn.initializers.zeros, bias_init=nn.initializers.zeros, name=name)


class ResBlock(nn.Module):
    """Two convolutions with the code of the time between them, and a shortcut.

    Attributes:
      features: channels of the output.
      resample: 1 keeps the grid, 2 doubles it, -2 halves it.
      dropout: its rate before the second convolution.
    """

    features: int
    resample: int = 1
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, code: jax.Array, train: bool) -> jax.Array:
        y = nn.silu(group_norm(x, "in_layers_0"))
        if self.resample != 1:
            x, y = (block_repeat(each, 2) if self.resample == 2 else block_mean(each, 2) for each in (x, y))
        y = Conv(self.features, name="in_layers_2")(y)
        y += linear(self.features, code.shape[-1], "embed_layers_1")(nn.silu(code))[:, None, None]
        y = nn.silu(group_norm(y, "out_layers_0"))
        y = Dropout(self.dropout, deterministic=not train)(y)
        y = _zero_conv(self.features, "out_layers_3")(y)
        return y + (x if x.shape[-1] == self.features else Conv(self.features, 1, name="skip_connection")(x))


class Attention(nn.Module):
    """Self-attention of all positions, with a shortcut.

    Attributes:
      heads: divides the channels.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        number, height, width, depth = x.shape
        tokens = group_norm(x, "norm").reshape(number, height * width, depth)
        # the channels are those of the first head's q, k, v, then those of the second one's
        qkv = linear(3 * depth, depth, "to_qkv")(tokens).reshape(number, height * width, self.heads, 3, -1)
        y = attend(*(qkv[:, :, :, i] for i in range(3))).reshape(tokens.shape)
        y = nn.Dense(depth, kernel_init=nn.initializers.zeros, name="proj_out")(y)
        return x + y.reshape(x.shape)


class AdmUNet(nn.Module):
    """A network that sees a noised image and its time: a U-Net of residual blocks, with attention on coarse grids.

    Attributes:
      width: channels of the first convolution.
      multipliers: of the levels' channels; each level halves the grid of the one before. (): `default_multipliers`.
      blocks: residual blocks of each level on the way down; there is one more on the way up.
      attention: sides of the grids on which attention follows each block.
      heads: of the attention.
      dropout: its rate in residual blocks.
      channels: of the output.
    """

    width: int
    multipliers: tuple[float, ...] = ()
    blocks: int = 2
    attention: tuple[int, ...] = (32, 16, 8)
    heads: int = 1
    dropout: float = 0.0
    channels: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, train: bool = False) -> jax.Array:
        """`[B, H, W, C]` and times `[B]` to `[B, H, W, channels]`; H and W are multiples of 2^(levels - 1)."""
        widths = [int(self.width * each) for each in self.multipliers or default_multipliers(x.shape[1])]
        code = linear(4 * self.width, self.width, "time_embedding_1")(time_code(t, self.width))
        code = linear(4 * self.width, 4 * self.width, "time_embedding_3")(nn.silu(code))

        def unit(x, features, name):
            x = ResBlock(features, 1, self.dropout, name=f"{name}_0")(x, code, train)
            return Attention(self.heads, name=f"{name}_1")(x) if x.shape[1] in self.attention else x

        x = Conv(self.width, name="down_0_0")(x)
        skips = [x]
        for level, features in enumerate(widths):
            for _ in range(self.blocks):
                x = unit(x, features, f"down_{len(skips)}")
                skips.append(x)
            if level < len(widths) - 1:
                x = ResBlock(features, -2, self.dropout, name=f"down_{len(skips)}_0")(x, code, train)
                skips.append(x)
        x = ResBlock(x.shape[-1], 1, self.dropout, name="middle_0")(x, code, train)
        x = Attention(self.heads, name="middle_1")(x)
        x = ResBlock(x.shape[-1], 1, self.dropout, name="middle_2")(x, code, train)
        number = 0
        for level, features in reversed(list(enumerate(widths))):
            for block in range(self.blocks + 1):
                attended = x.shape[1] in self.attention
                x = unit(jnp.concatenate([x, skips.pop()], axis=-1), features, f"up_{number}")
                if level and block == self.blocks:
                    x = ResBlock(features, 2, self.dropout, name=f"up_{number}_{1 + attended}")(x, code, train)
                number += 1
        return _zero_conv(self.channels, "out_2")(nn.silu(group_norm(x, "out_0")))
