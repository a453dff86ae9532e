"""Convolutions and other layers with PyTorch's conventions, in forms whose gradients are fast on every platform."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from iadjax.cpu.dispatch import by_platform
from iadjax.cpu.patches import product
from iadjax.cpu.prepared import TRANSFORMED
from iadjax.nn.convolution import convolve
from iadjax.ops import from_block_vectors, per_channel
from iadjax.parallel.axis import own_rows

__all__ = [
    "Conv",
    "ConvTranspose2x2",
    "DilatedConv",
    "Dropout",
    "linear",
    "max_pool",
    "uniform_bias",
    "uniform_fan_in",
    "uniform_fan_out",
]


def uniform_fan_in(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """PyTorch's default for convolutions and linear layers: U(-b, b) with b = 1 / sqrt(fan in)."""
    return nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")(key, shape, dtype)


def uniform_fan_out(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
    """PyTorch's default for transposed convolutions: U(-b, b), b = 1 / sqrt(kernel's positions x channels of the output)."""
    return nn.initializers.variance_scaling(1 / 3, "fan_out", "uniform")(key, shape, dtype)


def uniform_bias(fan_in: int) -> Callable:
    """PyTorch's default for biases: U(-b, b) with b = 1 / sqrt(fan in)."""
    return functools.partial(jax.random.uniform, minval=-(fan_in**-0.5), maxval=fan_in**-0.5)


def linear(features: int, fan_in: int, name: str, bias: bool = True) -> nn.Dense:
    """A linear layer with PyTorch's default initialisation; `fan_in`: channels of its input."""
    return nn.Dense(features, bias, kernel_init=uniform_fan_in, bias_init=uniform_bias(fan_in), name=name)


class Conv(nn.Module):
    """A convolution with PyTorch's padding (the same number on each side) and default initialisation.

    Attributes:
      features: channels of the output.
      kernel: its side, or both of them.
      stride, padding, bias: as in PyTorch; padding None: half the kernel.
      kernel_init, bias_init: draw the kernel and the bias; None: PyTorch's default.
      part: (first, end): compute only these channels of the output.
      rounded: round the factors of products to bfloat16 (`nn.convolution.convolve`).
    """

    features: int
    kernel: int | tuple[int, int] = 3
    stride: int = 1
    padding: int | None = None
    bias: bool = True
    kernel_init: Callable = uniform_fan_in
    part: tuple[int, int] | None = None
    rounded: bool = False
    bias_init: Callable | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        sides = self.kernel if isinstance(self.kernel, tuple) else (self.kernel, self.kernel)
        pad = sides[0] // 2 if self.padding is None else self.padding
        kernel = self.param("kernel", self.kernel_init, (*sides, x.shape[-1], self.features))
        part = slice(*self.part) if self.part else slice(None)
        x, kernel = promote_dtype(x, kernel[..., part])
        # `cpu.prepared.precompute` puts it there
        transformed = None if self.part else self.get_variable("params", TRANSFORMED)
        y = convolve(x, kernel, self.stride, pad, self.rounded, transformed)
        if self.bias:
            init = self.bias_init or uniform_bias(sides[0] * sides[1] * x.shape[-1])
            y += per_channel(self.param("bias", init, (self.features,))[part].astype(y.dtype), y)
        return y


class DilatedConv(nn.Module):
    """A 3 x 3 convolution without a bias whose taps are `rate` positions apart; the grid stays.

    Attributes:
      features: channels of the output.
      rate: see above.
    """

    features: int
    rate: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", uniform_fan_in, (3, 3, x.shape[-1], self.features))
        step, order = (self.rate, self.rate), ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), (step, step), rhs_dilation=step, dimension_numbers=order)


class ConvTranspose2x2(nn.Module):
    """A transposed convolution of kernel 2 and stride 2, without a bias: every position becomes a 2 x 2 block."""

    features: int
    kernel_init: Callable = uniform_fan_out
    rounded: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        depth = x.shape[-1]
        kernel = self.param("transposed_kernel", self.kernel_init, (2, 2, depth, self.features))
        x, kernel = promote_dtype(x, kernel)
        y = product(x, kernel.transpose(2, 0, 1, 3).reshape(depth, -1), self.rounded)
        return from_block_vectors(y, 2)


class Dropout(nn.Module):
    """Dropout (Srivastava et al., 2014), as Flax's; a replica takes its rows of the numbers that are drawn for a whole batch.

    Attributes:
      rate: probability that a number becomes zero.
      deterministic: leave everything as it is.
    """

    rate: float
    deterministic: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, ...]` of the same shape."""
        if self.deterministic or not self.rate:
            return x
        key, kept = self.make_rng("dropout"), 1.0 - self.rate
        mask = own_rows(lambda rows: jax.random.bernoulli(key, kept, (rows, *x.shape[1:])), x.shape[0])
        return jnp.where(mask, x / kept, jnp.zeros_like(x))


def max_pool(x: jax.Array, pads: Sequence[tuple[int, int]]) -> jax.Array:
    """The largest of every 3 x 3 window at stride 2, `[B, H, W, C]`; `pads`: (before, after) of rows and of columns.

    Where several numbers of a window are equal and the largest, CPUs divide the gradient among them; other platforms give it
    to the first one.
    """
    # padded separately: the converter to ONNX ignores an explicit padding of the pooling
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)), constant_values=-jnp.inf)
    window = functools.partial(nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding="VALID")
    # XLA:CPU reads a window number by number
    return by_platform(padded, cpu=lambda x: _largest_of_three(_largest_of_three(x, 1), 2), default=window)


def _largest_of_three(x: jax.Array, axis: int) -> jax.Array:
    """Of windows of 3 at stride 2 along one axis."""
    last = x.shape[axis] - 2
    first, second, third = (jax.lax.slice_in_dim(x, i, last + i, 2, axis) for i in range(3))
    return jnp.maximum(jnp.maximum(first, second), third)
