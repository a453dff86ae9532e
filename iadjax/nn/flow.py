"""Invertible layers of convolutional normalising flows."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.nn.layers import Conv
from iadjax.ops import per_channel

__all__ = ["AllInOneBlock"]


class AllInOneBlock(nn.Module):
    """An affine coupling, a scale for each channel and a fixed permutation of the channels (FrEIA's block of this name).

    1. The first half x1 of the channels conditions the second: x2 -> x2 exp(s(x1)) + t(x1), where s = clamp tanh(0.1 a) and
       t = 0.1 b. Two convolutions of x1 with a ReLU between them give (a, b).
    2. y = permute(scale x + offset), where scale = 0.2 log(1 + exp(g / 2)) starts at 1.

    Attributes:
      kernel: of both convolutions.
      hidden_ratio: channels between them, as a multiple of those of x1 (FrEIA builds the convolutions from x1's number).
      clamp: largest |s|.
    """

    kernel: int = 3
    hidden_ratio: float = 1.0
    clamp: float = 2.0

    @nn.compact
    def __call__(self, x: jax.Array, inverse: bool = False) -> tuple[jax.Array, jax.Array]:
        """Maps `[B, h, w, C]` to the same shape, and gives log |det| of the Jacobian of this direction, `[B]`."""
        depth = x.shape[-1]
        second = depth // 2
        first = depth - second
        start = 2 * jnp.log(jnp.expm1(5.0))
        scale = self.param("global_scale", lambda key: jnp.full((depth,), start))
        scale = 0.2 * jax.nn.softplus(0.5 * scale)
        offset = self.param("global_offset", nn.initializers.zeros, (depth,))
        draw = lambda: jax.random.permutation(self.make_rng("params"), depth)  # noqa: E731
        order = self.variable("constants", "permutation", draw).value
        hidden = max(1, int(first * self.hidden_ratio))
        enter, leave = Conv(hidden, self.kernel, name="subnet_0"), Conv(2 * second, self.kernel, name="subnet_2")

        def coupling(condition):
            a = 0.1 * leave(nn.relu(enter(condition)))
            return self.clamp * jnp.tanh(a[..., :second]), a[..., second:]

        pixels = x.shape[1] * x.shape[2]
        constant = pixels * jnp.sum(jnp.log(scale))
        # a matrix product, because XLA's gradient of an index along channels is slow; exact: every sum has one term
        permute = functools.partial(jnp.matmul, precision="highest")
        matrix = jax.nn.one_hot(order, depth, axis=0)
        if inverse:
            x = (permute(x, matrix.T) - per_channel(offset, x)) / per_channel(scale, x)
            s, t = coupling(x[..., :first])
            x = jnp.concatenate([x[..., :first], (x[..., first:] - t) * jnp.exp(-s)], axis=-1)
            return x, -jnp.sum(s, axis=(1, 2, 3)) - constant
        s, t = coupling(x[..., :first])
        x = jnp.concatenate([x[..., :first], x[..., first:] * jnp.exp(s) + t], axis=-1)
        x = per_channel(scale, x) * x + per_channel(offset, x)
        return permute(x, matrix), jnp.sum(s, axis=(1, 2, 3)) + constant
