"""FastFlow: names of the tensors of Gathierry's code ("nf_flows.") and of anomalib's ("fast_flow_blocks.")."""

import numpy as np

from iadjax.backbones.weights import torch_layout

_BLOCK = r"(?:nf_flows|fast_flow_blocks)\.(\d+)\.module_list\.(\d+)\."

TABLE = {
    r"norms\.(\d+)\.(weight|bias)": r"norms_\1/\2",
    rf"{_BLOCK}(global_scale|global_offset)": r"nf_flows_\1/module_list_\2/\3",
    rf"{_BLOCK}w_perm": r"nf_flows_\1/module_list_\2/permutation",
    # convolutions are layers 0 and 2 of the sequence, or 1 and 4 where padding is a layer of its own
    rf"{_BLOCK}subnet\.[01]\.(weight|bias)": r"nf_flows_\1/module_list_\2/subnet_0/\3",
    rf"{_BLOCK}subnet\.[24]\.(weight|bias)": r"nf_flows_\1/module_list_\2/subnet_2/\3",
    rf"{_BLOCK}(w_perm_inv|last_jac)": None,
    r"feature_extractor\..*": None,
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """Norms `[C, h, w]` to `[h, w, C]`, scales `[1, C, 1, 1]` to `[C]`, permutation matrices to the channel that comes i-th."""
    if path[-1] == "permutation":
        return tensor[..., 0, 0].argmax(axis=1)
    if path[1].startswith("norms"):
        return tensor.transpose(1, 2, 0)
    return tensor.reshape(-1) if path[-1].startswith("global") else torch_layout(path, tensor)
