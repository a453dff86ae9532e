"""DifferNet: names of the tensors of the authors' code, whose permutations follow from their numbers."""

import re

import numpy as np

TABLE = {
    r"nf\.module_list\.(\d+)\.(s[12])\.(fc\w+)\.(weight|bias)": r"module_list_\1/\2_\3/\4",
    r"nf\.module_list\.(\d+)\.permutation": r"module_list_\1/permutation_0",
    # a norm that the authors' network never calls
    r"nf\.module_list\.\d+\.s[12]\.bn\..*": None,
    r"feature_extractor\..*": None,
}


def prepare(tensors):
    """Adds the permutation before the k-th coupling, which NumPy draws from the seed k."""
    couplings = sorted({int(each[1]) for each in (re.search(r"module_list\.(\d+)\.s1", name) for name in tensors) if each})
    drawn = {}
    for k, number in enumerate(couplings):
        first = next(value for name, value in tensors.items() if re.search(rf"module_list\.{number}\.s1\.fc1\.weight", name))
        last = next(value for name, value in tensors.items() if re.search(rf"module_list\.{number}\.s1\.fc3\.bias", name))
        # s1 sees the first half and moves the second
        depth = first.shape[1] + last.shape[0] // 2
        drawn[f"nf.module_list.{number - 1}.permutation"] = np.random.RandomState(k).permutation(depth)
    return {**tensors, **drawn}
