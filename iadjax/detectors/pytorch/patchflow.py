"""PatchFlow: names of the tensors of anomalib ("flow.") and of the authors' code ("graph.flow.")."""

import numpy as np

from iadjax.backbones.weights import torch_layout

_BLOCK = r"(?:graph\.)?flow\.module_list\.(\d+)\."

TABLE = {
    r"feature_adaptor\.(?:conv1\.)?(weight|bias)": r"feature_adaptor/\1",
    rf"{_BLOCK}(global_scale|global_offset)": r"flow/module_list_\1/\2",
    rf"{_BLOCK}w_perm": r"flow/module_list_\1/permutation",
    rf"{_BLOCK}subnet\.([012])\.(weight|bias|running_mean|running_var)": r"flow/module_list_\1/subnet_\2/\3",
    rf"{_BLOCK}(w_perm_inv|last_jac)": None,
    r"feature_extractor\..*": None,
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """Scales `[1, C, 1, 1]` to `[C]`, permutation matrices to the channel that comes i-th."""
    if path[-1] == "permutation":
        return tensor[..., 0, 0].argmax(axis=1)
    return tensor.reshape(-1) if path[-1].startswith("global") else torch_layout(path, tensor)
