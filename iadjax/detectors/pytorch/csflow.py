"""CS-Flow: names of the tensors of anomalib ("graph.graph.") and of the authors' code, whose permutations follow from their
numbers."""

import re

import numpy as np

TABLE = {
    r"graph\.graph\.module_list\.(\d+)\.cross_convolution([12])\.(gamma\d)": r"module_list_\1/cross_convolution\2/\3",
    r"graph\.graph\.module_list\.(\d+)\.cross_convolution([12])\.(\w+)\.(weight|bias)": (
        r"module_list_\1/cross_convolution\2/\3/\4"
    ),
    r"graph\.graph\.module_list\.(\d+)\.permutation\.(\d)": r"module_list_\1/permutation_\2",
    r"feature_extractor\..*": None,
}


def prepare(tensors):
    """The authors' tensors by anomalib's names, and the permutation before coupling k, which NumPy draws from the seed k.

    The authors draw one for each scale, anomalib one for all.
    """
    authors = any(name.startswith("module_list.") for name in tensors)
    if authors:
        tensors = {_renamed(name): tensor for name, tensor in tensors.items()}
    pattern = re.compile(r"graph\.graph\.module_list\.(\d+)\.cross_convolution([12])\.conv_scale(\d)_0\.weight")
    found = [
        (int(match[1]), int(match[2]), int(match[3]), tensors[match[0]].shape[1])
        for match in map(pattern.match, tensors)
        if match
    ]
    drawn = {}
    for number in sorted({each[0] for each in found}):
        k = number // 2
        widths = {(half, scale): width for at, half, scale, width in found if at == number}
        depth, scales = widths[1, 0] + widths[2, 0], 1 + max(scale for _, scale in widths)
        seeded, same = np.random.RandomState(k), np.random.default_rng(k).permutation(depth)
        for scale in range(scales):
            order = seeded.permutation(depth) if authors else same
            drawn[f"graph.graph.module_list.{number - 1}.permutation.{scale}"] = order
    return {**tensors, **drawn}


def _renamed(name: str) -> str:
    """Of the authors' list, three inputs are the first members."""
    match = re.fullmatch(r"module_list\.(\d+)\.s([12])\.(.*)", name)
    return f"graph.graph.module_list.{int(match[1]) - 3}.cross_convolution{match[2]}.{match[3]}" if match else name
