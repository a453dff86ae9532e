"""Mixed precision: products of convolutions and linear layers in bfloat16, everything else in float32.

On CPUs a convolution that bfloat16 makes no faster stays in float32 (`nn.convolution.convolve`), and products of linear layers
have float32 results, which take half the time of rounded ones.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.cpu.dispatch import by_platform
from iadjax.errors import UserError, did_you_mean
from iadjax.nn.dcgan import ConvTranspose4x4
from iadjax.nn.layers import Conv, ConvTranspose2x2

__all__ = ["PRECISIONS", "mixed_precision"]

PRECISIONS = ("float32", "bfloat16")

_FLAX = (nn.Conv, nn.Dense)
_OURS = (Conv, ConvTranspose2x2, ConvTranspose4x4)


def mixed_precision(function: Callable, precision: str) -> Callable:
    """The function; the Flax modules that it calls multiply in `precision`.

    Parameters, their gradients, norms, attention weights, losses, distances and scores stay float32 (Micikevicius et al.,
    ICLR 2018; bfloat16 has float32's range, so that no loss is scaled).

    Args:
      function: any function of arrays.
      precision: "float32" leaves it as it is, "bfloat16".

    Raises:
      UserError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise UserError(f"there is no precision {precision!r}; {did_you_mean(precision, PRECISIONS)}")
    if precision == "float32":
        return function

    @functools.wraps(function)
    def wrapped(*args):
        with nn.intercept_methods(_in_bfloat16):
            return function(*args)

    return wrapped


def _in_bfloat16(call, args, kwargs, context):
    module = context.module
    if not isinstance(module, _FLAX + _OURS) or context.method_name != "__call__":
        return call(*args, **kwargs)
    # a bound module is frozen, and a copy with another dtype would have other parameters
    if isinstance(module, _OURS):
        object.__setattr__(module, "rounded", True)
        return call(*args, **kwargs)
    if isinstance(module, nn.Dense):
        object.__setattr__(module, "dtype", jnp.float32)
        object.__setattr__(module, "dot_general", _rounded_product)
        return call(*args, **kwargs)
    object.__setattr__(module, "dtype", jnp.bfloat16)
    return jax.tree.map(lambda x: x.astype(jnp.float32), call(*args, **kwargs))


def _rounded_product(x: jax.Array, kernel: jax.Array, dimensions, precision=None, **options) -> jax.Array:
    """`lax.dot_general` of float32 arrays that are rounded to bfloat16, with a float32 result."""
    del options

    def product(result):
        def call(x, kernel):
            y = jax.lax.dot_general(x, kernel, dimensions, precision=precision, preferred_element_type=result)
            return y.astype(jnp.float32)

        return call

    operands = (each.astype(jnp.bfloat16) for each in (x, kernel))
    return by_platform(*operands, cpu=product(jnp.float32), default=product(jnp.bfloat16))
