"""Convolutions as one matrix product; its factors may be rounded to bfloat16."""

import functools

import jax
import jax.numpy as jnp

from iadjax.cpu.dispatch import by_platform

__all__ = ["matmul", "patch_product", "product"]


def patch_product(x: jax.Array, kernel: jax.Array, stride: int = 1, pad: int = 0, rounded: bool = False) -> jax.Array:
    """Convolution as one matrix product of all neighbourhoods with the kernel.

    Args:
      x: `[B, H, W, C]`.
      kernel: `[h, w, C, O]`.
      stride: of both axes.
      pad: zeros on each side.
      rounded: factors are rounded to bfloat16, sums stay float32.

    Returns:
      `[B, H', W', O]`.
    """
    height, width, _, features = kernel.shape
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    bottom, right = x.shape[1] - height + 1, x.shape[2] - width + 1
    shifted = [x[:, i : i + bottom : stride, j : j + right : stride] for i in range(height) for j in range(width)]
    return _multiply(jnp.concatenate(shifted, axis=-1), kernel.reshape(-1, features), rounded)


def product(x: jax.Array, matrix: jax.Array, rounded: bool = False) -> jax.Array:
    """Matrix product of `[..., C]` and `[C, O]`. `rounded`: factors are rounded to bfloat16; on CPUs sums stay float32."""
    if not rounded:
        return _multiply(x, matrix)
    half = jnp.bfloat16
    default = lambda x, matrix: _multiply(x.astype(half), matrix.astype(half)).astype(x.dtype)  # noqa: E731
    return by_platform(x, matrix, cpu=functools.partial(_multiply, rounded=True), default=default)


def _multiply(x: jax.Array, matrix: jax.Array, rounded: bool = False) -> jax.Array:
    """Matrix product over two axes. XLA:CPU takes two to three times as long for gradients over more axes."""
    return matmul(x.reshape(-1, x.shape[-1]), matrix, rounded).reshape(*x.shape[:-1], matrix.shape[-1])


def matmul(x: jax.Array, matrix: jax.Array, rounded: bool) -> jax.Array:
    return _rounded_product(x, matrix) if rounded else x @ matrix


@jax.custom_vjp
def _rounded_product(x: jax.Array, matrix: jax.Array) -> jax.Array:
    """Matrix product of `[..., N, C]` and `[..., C, O]`: factors in bfloat16, sums in float32, in both gradients as well."""
    x, matrix = x.astype(jnp.bfloat16), matrix.astype(jnp.bfloat16)
    return jnp.matmul(x, matrix, preferred_element_type=jnp.float32)


def _rounded_forward(x: jax.Array, matrix: jax.Array) -> tuple[jax.Array, tuple]:
    return _rounded_product(x, matrix), (x, matrix)


def _rounded_backward(factors: tuple, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, matrix = factors
    return _rounded_product(y, matrix.mT).astype(x.dtype), _rounded_product(x.mT, y).astype(matrix.dtype)


_rounded_product.defvjp(_rounded_forward, _rounded_backward)
