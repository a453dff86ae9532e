"""Networks that describe patches of an image (Bergmann et al., CVPR 2020), and their evaluation at every pixel at once."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import ops
from iadjax.nn.layers import Conv

__all__ = ["SPECS", "PatchNetwork"]

# by the side of a patch: (channels as a multiple of the width, 0 the descriptor's; kernel; whether a 2 x 2 max pooling follows)
SPECS = {
    17: ((1, 6, False), (2, 5, False), (2, 5, False), (0, 4, False)),
    33: ((1, 5, True), (2, 5, True), (2, 2, False), (0, 4, False)),
    65: ((1, 5, True), (1, 5, True), (2, 5, True), (2, 4, False), (0, 1, False)),
}


class PatchNetwork(nn.Module):
    """Convolutions without padding that reduce a patch to one vector, its descriptor.

    Attributes:
      size: side of a patch, a key of `SPECS`.
      width: channels of the first layer.
      features: numbers of a descriptor.
      decode: numbers that a linear layer makes of it; 0: none.
    """

    size: int
    width: int = 128
    features: int = 128
    decode: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, dense: bool = False) -> jax.Array:
        """Descriptors of images in [0, 1].

        Args:
          x: `[B, H, W, 3]`.
          dense: describe the patch around every pixel, with zeros outside the image; otherwise sides are those of a patch.

        Returns:
          `[B, H, W, D]` if dense, else `[B, D]`. Both forms of a patch are the same numbers.

        A pooling divides a patch into blocks that begin at its corner. So it is done at its four offsets, which become images
        of a batch, and the last layer's outputs are interleaved (fast dense feature extraction, Bailer et al., 2018).
        """
        x, (height, width) = 2 * x - 1, x.shape[1:3]
        batch, pools = len(x), 0
        if dense:
            factor = 2 ** sum(pool for *_, pool in SPECS[self.size])
            pads = [(self.size // 2, self.size // 2 + -side % factor) for side in (height, width)]
            x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        for i, (multiple, kernel, pool) in enumerate(SPECS[self.size], start=1):
            last = i == len(SPECS[self.size])
            x = Conv(multiple * self.width or self.features, kernel, padding=0, name=f"conv{i}")(x)
            # what a decoder follows is activated as well
            x = x if last and not self.decode else nn.leaky_relu(x, 5e-3)
            if pool:
                x = _at_offsets(x) if dense else ops.block_max(x, 2)
                pools += 1
        x = _interleaved(x, batch, pools)[:, :height, :width] if dense else x[:, 0, 0]
        return nn.leaky_relu(nn.Dense(self.decode, name="decode")(x), 5e-3) if self.decode else x


def _at_offsets(x: jax.Array) -> jax.Array:
    """`[N, H, W, C]` to `[4 N, h, w, C]`: pooled from each of four corners on, the first offset for all images first."""
    # zeros fill the last blocks, whose outputs are left out at the end
    sides = [(side + 1) // 2 * 2 for side in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *((0, end + 1 - side) for end, side in zip(sides, x.shape[1:3], strict=True)), (0, 0)))
    parts = [ops.block_max(x[:, i : i + sides[0], j : j + sides[1]], 2) for i in (0, 1) for j in (0, 1)]
    return jnp.concatenate(parts)


def _interleaved(x: jax.Array, batch: int, pools: int) -> jax.Array:
    """What `_at_offsets` took apart: `[4^pools B, h, w, C]` to `[B, 2^pools h, 2^pools w, C]`."""
    height, width, depth = x.shape[1:]
    x = x.reshape(*(2,) * (2 * pools), batch, height, width, depth)
    # the last pooling's offsets are the first axes, and the finest are the first pooling's
    rows, columns = range(0, 2 * pools, 2), range(1, 2 * pools, 2)
    first = 2 * pools
    x = x.transpose(first, first + 1, *rows, first + 2, *columns, first + 3)
    return x.reshape(batch, height << pools, width << pools, depth)
