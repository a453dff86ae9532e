"""FastFlow: names of tensors in other libraries."""

from iadjax.backbones import weights
from iadjax.detector import State

__all__ = ["from_torch"]


def from_torch(tensors, state: State) -> State:
    """The state with the tensors of Gathierry's code ("nf_flows.0.module_list.0...") or of anomalib ("fast_flow_blocks.")."""

    def name(path):
        return weights.torch_name(path[:-1] + ("w_perm",)) if path[-1] == "permutation" else weights.torch_name(path)

    def layout(path, tensor):
        if path[-1] == "permutation":
            # a matrix of zeros and ones: row i holds the channel that comes i-th
            return tensor[..., 0, 0].argmax(axis=1) if tensor.ndim == 4 else tensor
        if path[1].startswith("norms"):
            return tensor.transpose(1, 2, 0) if tensor.ndim == 3 else tensor
        if path[-1].startswith("global"):
            return tensor.reshape(-1)
        return weights.torch_layout(path, tensor)

    renamed = {key.removeprefix("model.").replace("fast_flow_blocks.", "nf_flows."): value for key, value in tensors.items()}
    ignored = r".*\.w_perm_inv|feature_extractor\..*|.*\.last_jac"
    return state._replace(variables=weights.fill(state.variables, renamed, name, layout, ignored))
