"""AST: names of the tensors of the authors' networks, "teacher." and "student." before them.

The permutation before coupling k is NumPy's of the seed k, and no tensor of theirs.
"""

import re

import numpy as np

from iadjax.backbones.weights import fill_by_table, torch_layout

TABLE = {
    r"teacher\.module_list\.(\d+)\.(s[12])\.gamma": r"module_list_\1/\2/gamma",
    r"teacher\.module_list\.(\d+)\.(s[12])\.(conv[12])\.(weight|bias)": r"module_list_\1/\2/\3/\4",
    r"teacher\.module_list\.(\d+)\.permutation": r"module_list_\1/permutation_0",
    r"student\.(conv[12])\.(weight|bias)": r"\1/\2",
    r"student\.res\.(\d+)\.(l[12]|bn[12])\.(weight|bias|running_mean|running_var)": r"res_\1_\2/\3",
    r"student\.gamma|student\.res\.\d+\.bn[12]\.num_batches_tracked": None,
}


def from_torch(tensors, state):
    """Both networks, each from its own part of the tensors."""
    teacher = {name: tensor for name, tensor in tensors.items() if name.startswith("teacher.")}
    depth = next(leaf.shape[0] for path, leaf in _leaves(state.teacher.variables) if path.endswith("permutation_0"))
    couplings = sorted({int(re.search(r"module_list\.(\d+)\.", name)[1]) for name in teacher})
    for k, number in enumerate(couplings):
        teacher[f"teacher.module_list.{number - 1}.permutation"] = np.random.RandomState(k).permutation(depth)
    student = {name: tensor for name, tensor in tensors.items() if name.startswith("student.")}
    parts = zip(state, (teacher, student), strict=True)
    filled = (each._replace(variables=fill_by_table(each.variables, part, TABLE, _layout)) for each, part in parts)
    return type(state)(*filled)


def _leaves(tree, prefix=""):
    for key, value in tree.items():
        yield from _leaves(value, f"{prefix}/{key}") if hasattr(value, "items") else [(f"{prefix}/{key}", value)]


def _layout(path, tensor):
    return tensor if path[-1] in ("gamma", "permutation_0") else torch_layout(path, tensor)
