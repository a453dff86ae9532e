"""Swin transformer: attention within windows that shift from block to block (Liu et al., ICCV 2021, arXiv 2103.14030)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax import ops
from iadjax.nn.layers import Conv
from iadjax.nn.transformer import norm

__all__ = ["PatchExpanding", "PatchMerging", "SwinBlock", "SwinEncoder", "SwinUNet", "WindowAttention"]

_normal = nn.initializers.truncated_normal(0.02)
# added to the logits of positions that were neighbours only through the shift
_APART = -100.0


def _bias_index(window: int) -> np.ndarray:
    """For each pair of positions of a window, the row of the table of biases: `[window^2, window^2]` int."""
    place = np.stack(np.divmod(np.arange(window**2), window))
    down, right = place[:, :, None] - place[:, None] + window - 1
    return down * (2 * window - 1) + right


def _regions(height: int, width: int, window: int, shifts: tuple[int, int]) -> np.ndarray:
    """Which positions of a shifted grid were neighbours before: numbers `[windows, window^2]`, equal where they were."""

    def along(side, shift):
        place = np.arange(side)
        return np.where(place < side - window, 0, np.where(place < side - shift, 1, 2)) if shift else np.zeros(side, int)

    regions = 3 * along(height, shifts[0])[:, None] + along(width, shifts[1])
    blocks = regions.reshape(height // window, window, width // window, window).swapaxes(1, 2)
    return blocks.reshape(-1, window**2)


class WindowAttention(nn.Module):
    """Self-attention within square windows, with a learned bias for each offset (eq. 4).

    Attributes:
      window: side of the windows. Zeros complete the grid to a multiple, as in torchvision.
      shift: the windows begin so many positions later; an axis of one window is not shifted.
      heads: divides the channels.
    """

    window: int
    shift: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` of the same shape."""
        (batch, height, width, depth), side, size = x.shape, self.window, self.window**2
        table = self.param("relative_position_bias_table", _normal, ((2 * side - 1) ** 2, self.heads))
        x = jnp.pad(x, ((0, 0), (0, -height % side), (0, -width % side), (0, 0)))
        rows, columns = x.shape[1:3]
        shifts = tuple(0 if side >= length else self.shift for length in (rows, columns))
        x = jnp.roll(x, [-shift for shift in shifts], (1, 2))
        x = ops.block_vectors(x, side)
        grid, x = x.shape, x.reshape(-1, size, depth)
        qkv = nn.Dense(3 * depth, kernel_init=_normal, name="qkv")(x).reshape(len(x), size, 3, self.heads, -1)
        q, k, v = (qkv[:, :, i] for i in range(3))
        bias = table[_bias_index(side).reshape(-1)].reshape(size, size, self.heads).transpose(2, 0, 1)
        logits = jnp.einsum("wqhd,wkhd->whqk", q * q.shape[-1] ** -0.5, k) + bias[None]
        if any(shifts):
            regions = _regions(rows, columns, side, shifts)
            apart = np.where(regions[:, :, None] == regions[:, None], 0.0, _APART).astype(np.float32)
            logits = (logits.reshape(batch, -1, *logits.shape[1:]) + apart[None, :, None]).reshape(logits.shape)
        y = jnp.einsum("whqk,wkhd->wqhd", jax.nn.softmax(logits), v).reshape(x.shape)
        y = nn.Dense(depth, kernel_init=_normal, name="proj")(y)
        y = ops.from_block_vectors(y.reshape(grid), side)
        return jnp.roll(y, shifts, (1, 2))[:, :height, :width]


class SwinBlock(nn.Module):
    """Attention and a feed-forward network, each after a norm and with a shortcut (eq. 3).

    Attributes: see `WindowAttention`.
    """

    window: int
    shift: int
    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` of the same shape."""
        depth = x.shape[-1]
        x += WindowAttention(self.window, self.shift, self.heads, name="attn")(norm("norm1", 1e-5)(x))
        y = nn.Dense(4 * depth, kernel_init=nn.initializers.xavier_uniform(), name="mlp_0")(norm("norm2", 1e-5)(x))
        y = nn.gelu(y, approximate=False)
        return x + nn.Dense(depth, kernel_init=nn.initializers.xavier_uniform(), name="mlp_3")(y)


class PatchMerging(nn.Module):
    """Halves the grid and doubles the channels: `[B, H, W, C]` to `[B, H / 2, W / 2, 2 C]`; zeros make odd sides even."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
        batch, height, width, depth = x.shape
        # the four positions of a block column by column
        x = x.reshape(batch, height // 2, 2, width // 2, 2, depth).transpose(0, 1, 3, 4, 2, 5)
        x = norm("norm", 1e-5)(x.reshape(batch, height // 2, width // 2, 4 * depth))
        return nn.Dense(2 * depth, use_bias=False, kernel_init=_normal, name="reduction")(x)


class SwinEncoder(nn.Module):
    """Patches of 4 x 4 pixels and stages of blocks, each with half the grid of the one before; torchvision's names.

    Attributes:
      width: channels of the first stage, which each stage doubles.
      depths: blocks of each stage; every second one is shifted by half a window.
      heads: of each stage.
      window: side of the windows.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[list[jax.Array], jax.Array]:
        """`[B, H, W, C]`, sides of multiples of 4, to what the stages see, `[B, H / 4, W / 4, width]` first, and the output."""
        x = Conv(self.width, 4, 4, 0, name="features_0_0")(x)
        x, inputs = norm("features_0_2", 1e-5)(x), []
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            if stage:
                x = PatchMerging(name=f"features_{2 * stage}")(x)
            inputs.append(x)
            x = _blocks(x, depth, heads, self.window, f"features_{2 * stage + 1}")
        return inputs, x


def _blocks(x: jax.Array, depth: int, heads: int, window: int, name: str) -> jax.Array:
    """So many blocks, every second one shifted by half a window, named by `name` and their number."""
    for i in range(depth):
        x = SwinBlock(window, i % 2 * (window // 2), heads, name=f"{name}_{i}")(x)
    return x


class PatchExpanding(nn.Module):
    """Enlarges the grid: every position becomes a block; `[B, H, W, C]` to `[B, factor H, factor W, features]`.

    Attributes:
      factor: side of a block.
      features: channels of the output.
    """

    factor: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(self.factor**2 * self.features, use_bias=False, kernel_init=_normal, name="expand")(x)
        return norm("norm", 1e-5)(ops.from_block_vectors(x, self.factor))


class SwinUNet(nn.Module):
    """A U-Net of Swin blocks: "Swin-Unet" (Cao et al., ECCVW 2022, arXiv 2105.05537).

    Attributes:
      channels: of the output.
      width, depths, heads, window: see `SwinEncoder`; the decoder has the same blocks but those of the last stage.
    """

    channels: int
    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H, W, channels]`; sides are multiples of 2^(number of stages + 1)."""
        skips, x = SwinEncoder(self.width, self.depths, self.heads, self.window, name="encoder")(x)
        x = norm("norm", 1e-5)(x)
        for stage in reversed(range(len(self.depths) - 1)):
            features = self.width * 2**stage
            x = PatchExpanding(2, features, name=f"up_{stage}")(x)
            both = jnp.concatenate([x, skips[stage]], axis=-1)
            x = nn.Dense(features, kernel_init=_normal, name=f"concat_{stage}")(both)
            x = _blocks(x, self.depths[stage], self.heads[stage], self.window, f"decoder_{stage}")
        x = PatchExpanding(4, self.width, name="up")(norm("norm_up", 1e-5)(x))
        return Conv(self.channels, 1, bias=False, name="output")(x)
