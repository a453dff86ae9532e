"""Frozen weights, rounded and transformed once instead of in every call."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.cpu.winograd import transform_kernel, worth_transforming

__all__ = ["TRANSFORMED", "precompute"]

TRANSFORMED = "transformed_kernel"
"""Name of the transformed kernel of a frozen convolution, beside "kernel"."""

_KERNELS = ("kernel", "transposed_kernel")


def precompute(frozen: Mapping[str, Any], precision: str) -> Mapping[str, Any]:
    """Makes frozen variables that give the same features in less time.

    With "bfloat16", kernels are rounded. On CPUs, kernels that are wide enough for Winograd's algorithm are transformed as
    well. The transformed kernels stand beside the original ones and have 16/9 of their numbers. That includes kernels used with
    stride 2, which need no transform, because variables do not tell the stride. Other arrays are not copied.

    Args:
      frozen: variables of frozen networks by name. Training that starts from pretrained weights starts from these.
      precision: "float32" or "bfloat16", as in `mixed_precision`.

    Returns:
      The same tree, with further arrays named `TRANSFORMED`.
    """
    rounded = precision == "bfloat16"
    dtype = jnp.bfloat16 if rounded else jnp.float32
    tiles = jax.default_backend() == "cpu"

    def put(kernel: np.ndarray) -> jax.Array:
        # NumPy needs no compilation for each shape
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
