"""Names and layouts of PyTorch tensors, and trees of ours filled with them."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from iadjax.errors import UserError

__all__ = ["fill", "torch_layout", "torch_name"]

_LEAVES = {
    "kernel": "weight",
    "transposed_kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def torch_name(path: tuple[str, ...]) -> str:
    """("params", "layer1_0", "conv1", "kernel") -> "layer1.0.conv1.weight"."""
    _, *modules, leaf = path
    return ".".join([*(re.sub(r"_(\d+)$", r".\1", module) for module in modules), _LEAVES.get(leaf, leaf)])


def torch_layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """A tensor in our layout: kernels `[O, I, h, w]` to `[h, w, I, O]`, transposed ones `[I, O, h, w]` to `[h, w, I, O]`,
    matrices `[O, I]` to `[I, O]`."""
    if path[-1] == "transposed_kernel":
        return tensor.transpose(2, 3, 0, 1)
    if path[-1] in ("kernel", "in_proj_weight"):
        return tensor.transpose(2, 3, 1, 0) if tensor.ndim == 4 else tensor.T
    return tensor


def fill(
    tree: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    name: Callable[[tuple[str, ...]], str] = torch_name,
    layout: Callable[[tuple[str, ...], np.ndarray], np.ndarray] = torch_layout,
    ignored: str = r"(?!)",
    failure: str = "the state dict does not fit",
) -> dict[str, Any]:
    """`tree` with every leaf replaced by the tensor of its name.

    Args:
      tree: nested dicts of arrays.
      tensors: the state dict.
      name: path in `tree` -> name in `tensors`.
      layout: (path, tensor) -> the tensor in our layout.
      ignored: pattern of names that need not have a place (counters of batches are always ignored).
      failure: how the error begins.

    Raises:
      UserError: a tensor is missing, unknown or of another shape; the first five are named.
    """
    filled, problems, known = {}, [], set()
    # in one order, whatever made the tree
    for path, leaf in sorted(flatten_dict(tree).items()):
        key = name(path)
        known.add(key)
        if key not in tensors:
            problems.append(f"missing {key}")
            continue
        tensor = layout(path, np.asarray(tensors[key]))
        if tensor.shape != leaf.shape:
            problems.append(f"{key} has shape {tuple(np.shape(tensors[key]))}, which does not fit {tuple(leaf.shape)}")
            continue
        filled[path] = jnp.asarray(tensor, leaf.dtype)
    skip = re.compile(rf"(.*\.num_batches_tracked|{ignored})")
    problems += [f"unknown {key}" for key in tensors if key not in known and not skip.fullmatch(key)]
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{failure}: {'; '.join(problems[:5])}{more}")
    return unflatten_dict(filled)
