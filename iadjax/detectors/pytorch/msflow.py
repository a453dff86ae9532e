"""MSFlow: names of the tensors of the authors' code ("parallel0." for the flow of the first level, "fusion.")."""

import numpy as np

from iadjax.backbones.weights import torch_layout

_BLOCK = r"parallel(\d+)\.module_list\.(\d+)\."
_COUPLING = r"fusion\.module_list\.\d+\.subnet_([12])\."

TABLE = {
    rf"{_BLOCK}(global_scale|global_offset)": r"parallel_\1_\2/\3",
    rf"{_BLOCK}w_perm": r"parallel_\1_\2/permutation",
    rf"{_BLOCK}subnet\.conv1\.(weight|bias)": r"parallel_\1_\2/subnet_0/\3",
    rf"{_BLOCK}subnet\.ln\.(weight|bias)": r"parallel_\1_\2/subnet_1/\3",
    rf"{_BLOCK}subnet\.conv2\.(weight|bias)": r"parallel_\1_\2/subnet_2/\3",
    rf"{_COUPLING}cross_convs\.(conv1|norm|conv2)\.(weight|bias)": r"fusion/subnet_\1/\2/\3",
    rf"{_COUPLING}conv_([st])\.(\d)\.(weight|bias)": r"fusion/subnet_\1/conv_\2_\3/\4",
    r"fusion\.(?:permute_|module_list\.)(\d)(?:\.perm)?": r"permute/permutation_\1",
    rf"{_BLOCK}(w_perm_inv|last_jac)": None,
    r"fusion\.module_list\.\d\.perm_inv": None,
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """Scales `[1, C, 1, 1]` to `[C]`, permutation matrices to the channel that comes i-th."""
    if path[-1].startswith("permutation"):
        return tensor if tensor.ndim == 1 else tensor[..., 0, 0].argmax(axis=1)
    return tensor.reshape(-1) if path[-1].startswith("global") else torch_layout(path, tensor)
