"""U-Flow: names of the tensors of the authors' code and of anomalib's, with ResNets."""

import numpy as np

from iadjax.backbones.weights import torch_layout

_BLOCK = r"flow\.module_list\.(\d+)\."

TABLE = {
    r"feature_extractor\.feature_normalizations\.(\d+)\.(weight|bias)": r"norms_\1/\2",
    rf"{_BLOCK}(global_scale|global_offset)": r"flow/module_list_\1/\2",
    rf"{_BLOCK}w_perm": r"flow/module_list_\1/permutation",
    rf"{_BLOCK}subnet\.(\d)\.(weight|bias)": r"flow/module_list_\1/subnet_\2/\3",
    rf"{_BLOCK}(w_perm_inv|last_jac|downsample_kernel)": None,
    r"feature_extractor\.(?:feature_)?extractor\..*": None,
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """Norms `[C, h, w]` to `[h, w, C]`, scales `[1, C, 1, 1]` to `[C]`, permutation matrices to the channel that comes i-th."""
    if path[-1] == "permutation":
        return tensor[..., 0, 0].argmax(axis=1)
    if path[1].startswith("norms"):
        return tensor.transpose(1, 2, 0)
    return tensor.reshape(-1) if path[-1].startswith("global") else torch_layout(path, tensor)
