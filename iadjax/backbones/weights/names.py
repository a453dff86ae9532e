"""Names and layouts of PyTorch tensors, and trees of ours filled with them."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from iadjax.errors import UserError

__all__ = ["Table", "fill", "fill_by_table", "position", "torch_layout", "torch_name"]

Table = Mapping[str, str | None]
"""Patterns of tensor names and where each tensor belongs; None: nowhere. See `fill_by_table`."""

_LEAVES = {
    "kernel": "weight",
    "transposed_kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


# a trainer's wrapper around the network, and counters that nothing here reads
_WRAPPER, _COUNTER = re.compile(r"(module\.|model\.)+"), re.compile(r".*\.num_batches_tracked")


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
      ignored: pattern of names that need no leaf (counters of batches are always ignored).
      failure: how the error begins.

    Raises:
      UserError: a tensor is missing, unknown or of another shape; the first five are named.
    """
    filled, problems, known = {}, [], set()
    # sorted, so that the order does not depend on how the tree was made
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
    skip = re.compile(ignored)
    unknown = (key for key in tensors if key not in known and not skip.fullmatch(key) and not _COUNTER.fullmatch(key))
    _report(problems + [f"unknown {key}" for key in unknown], failure)
    return unflatten_dict(filled)


def fill_by_table(
    tree: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    table: Table,
    layout: Callable[[tuple[str, ...], np.ndarray], np.ndarray] = torch_layout,
    failure: str = "the state dict does not fit",
) -> dict[str, Any]:
    """`tree` with every leaf replaced by the tensor that a table assigns to it.

    Args:
      tree: {collection: nested dicts of arrays}.
      tensors: the state dict; a leading "model." or "module." is left out.
      table: {regular expression: path}; the first one that matches a whole name counts. The path is the leaf's below its
        collection, joined by "/", with the groups of the match as \\1, \\2 ...; its last part may be PyTorch's ("weight",
        "running_mean"). None: the tensor has no position here.
      layout: (path, tensor) -> the tensor in our layout.
      failure: how the error begins.

    Raises:
      UserError: a tensor is unknown, of another shape or assigned twice, or a leaf has none; the first five are named.
    """
    leaves = flatten_dict(tree)
    filled, sources, problems = {}, {}, []
    for name, tensor in tensors.items():
        path = position(name, table, leaves)
        if path is None:
            continue
        if path not in leaves:
            problems.append(f"unknown {name}")
        elif path in sources:
            problems.append(f"{sources[path]} and {name} are the same tensor")
        else:
            sources[path] = name
            placed = layout(path, np.asarray(tensor))
            if placed.shape == leaves[path].shape:
                filled[path] = jnp.asarray(placed, leaves[path].dtype)
            else:
                problems.append(f"{name} has shape {np.shape(tensor)}, which does not fit {leaves[path].shape}")
    missing = [f"missing a tensor for {'/'.join(path[1:])}" for path in sorted(leaves) if path not in sources]
    _report(missing + problems, failure)
    return unflatten_dict(filled)


def position(name: str, table: Table, leaves: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    """The path among `leaves` (collection first) of the tensor `name`; () if it is unknown, None if it has no position."""
    name = _WRAPPER.sub("", name, count=1) if _WRAPPER.match(name) else name
    if _COUNTER.fullmatch(name):
        return None
    for pattern, target in table.items():
        match = re.fullmatch(pattern, name)
        if match and target is None:
            return None
        if match:
            *modules, last = match.expand(target).split("/")
            names = {last, *(ours for ours, theirs in _LEAVES.items() if theirs == last)}
            found = [path for path in leaves if list(path[1:-1]) == modules and path[-1] in names]
            return found[0] if found else ()
    return ()


def _report(problems: list[str], failure: str) -> None:
    if problems:
        more = f" and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise UserError(f"{failure}: {'; '.join(problems[:5])}{more}")
