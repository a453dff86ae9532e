"""Transposed convolutions with PyTorch's conventions, as convolutions whose gradients are fast on every platform."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from iadjax.nn.convolution import convolve
from iadjax.nn.layers import uniform_bias, uniform_fan_out
from iadjax.ops import per_channel

__all__ = ["ConvTranspose"]


class ConvTranspose(nn.Module):
    """A transposed convolution: PyTorch's `ConvTranspose2d` with its default initialisation.

    Output s m + a, a in [0, s), sees the inputs m + q - t by the taps s t + r, where s q + r = a + padding and 0 <= r < s. So
    one convolution of ceil(kernel / s) taps makes the s x s outputs of every block at once.

    Attributes:
      features: channels of the output.
      kernel: its side.
      stride, padding, output_padding, bias: as in PyTorch.
      kernel_init: draws the kernel.
      rounded: round the factors of products to bfloat16 (`nn.convolution.convolve`).
    """

    features: int
    kernel: int = 4
    stride: int = 2
    padding: int = 1
    output_padding: int = 0
    bias: bool = True
    kernel_init: Callable = uniform_fan_out
    rounded: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, H, W, C]` to `[B, H', W', O]`, H' = (H - 1) stride - 2 padding + kernel + output_padding."""
        batch, height, width, depth = x.shape
        size, step, pad = self.kernel, self.stride, self.padding
        kernel = self.param("transposed_kernel", self.kernel_init, (size, size, depth, self.features))
        x, kernel = promote_dtype(x, kernel)
        if (height, width, pad) == (1, 1, 0) and not self.output_padding:
            # of one position: a product
            y = jnp.einsum("bc,hwco->bhwo", x[:, 0, 0], kernel)
        else:
            y = self._by_blocks(
                x, kernel, [(side - 1) * step - 2 * pad + size + self.output_padding for side in (height, width)]
            )
        if self.bias:
            # PyTorch counts the kernel's positions and the channels of the output
            y += per_channel(self.param("bias", uniform_bias(size**2 * self.features), (self.features,)).astype(y.dtype), y)
        return y

    def _by_blocks(self, x, kernel, sides):
        size, step, pad = self.kernel, self.stride, self.padding
        taps = -(-size // step)
        # tap s t + r at [t, r], the last t first, as a convolution goes upwards through its input
        kernel = jnp.pad(kernel, [(0, taps * step - size)] * 2 + [(0, 0)] * 2)
        depth, features = kernel.shape[2:]
        kernel = kernel.reshape(taps, step, taps, step, depth, features)[::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
        y = convolve(x, kernel.reshape(taps, taps, depth, step**2 * features), pad=taps - 1, rounded=self.rounded)
        # blocks at the lower and right end that only reach zeros
        blocks = [-(-side // step) for side in sides]
        quotients, rests = zip(*(divmod(a + pad, step) for a in range(step)), strict=True)
        missing = [max(0, max(quotients) + number - have) for number, have in zip(blocks, y.shape[1:3], strict=True)]
        y = jnp.pad(y, ((0, 0), *((0, number) for number in missing), (0, 0)))
        y = y.reshape(*y.shape[:3], step, step, features)

        def phase(a, b):
            rows, columns = (slice(quotients[i], quotients[i] + number) for i, number in zip((a, b), blocks, strict=True))
            return y[:, rows, columns, rests[a], rests[b]]

        y = jnp.stack([jnp.stack([phase(a, b) for b in range(step)], axis=3) for a in range(step)], axis=2)
        return y.reshape(len(x), step * blocks[0], step * blocks[1], features)[:, : sides[0], : sides[1]]
