"""What every call would do to the weights of a frozen network again, done once."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.cpu.winograd import transform_kernel, worth_transforming

__all__ = ["TRANSFORMED", "precompute"]

TRANSFORMED = "transformed_kernel"
"""Beside "kernel" in a frozen convolution: the kernel as Winograd's form needs it."""

_KERNELS = ("kernel", "transposed_kernel")


def precompute(frozen: Mapping[str, Any], precision: str) -> Mapping[str, Any]:
    """Frozen variables that give the same features in less time.

    In bfloat16 their kernels are rounded already. On CPUs kernels that are wide enough for Winograd's form are transformed
    already, those of stride 2 too, which variables do not tell apart; they stand beside the original ones, with 16/9 of their
    numbers. Other arrays are shared, not copied.

    Args:
      frozen: variables of frozen networks by name. What is trained on from them begins with these, not with the result.
      precision: as in `precision.mixed_precision`.
    """
    rounded = precision == "bfloat16"
    dtype = jnp.bfloat16 if rounded else jnp.float32
    tiles = jax.default_backend() == "cpu"

    def put(kernel: np.ndarray) -> jax.Array:
        # NumPy rounds without a program of its own for each shape
        return jnp.asarray(kernel.astype(dtype))

    def walk(node: Any) -> Any:
        if not isinstance(node, Mapping):
            return node
        found = {name: walk(child) for name, child in node.items()}
        if rounded:
            found |= {name: put(np.asarray(node[name])) for name in _KERNELS if name in node}
        if tiles and "kernel" in node and worth_transforming(node["kernel"].shape):
            found[TRANSFORMED] = jax.tree.map(put, transform_kernel(np.asarray(node["kernel"])))
        return found

    return walk(frozen)
