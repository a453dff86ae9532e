"""CFLOW-AD: names of the tensors of anomalib ("decoders.0.") and of the authors' code ("decoder0.", for a list of decoders)."""

import numpy as np

from iadjax.backbones.weights import fill_by_table, torch_layout

_BLOCK = r"decoders?\.?(\d+)\.module_list\.(\d+)\."

TABLE = {
    rf"{_BLOCK}(global_scale|global_offset)": r"decoders_\1_\2/\3",
    rf"{_BLOCK}w_perm": r"decoders_\1_\2/mixing",
    rf"{_BLOCK}subnet\.(\d)\.(weight|bias)": r"decoders_\1_\2/subnet_\3/\4",
    rf"{_BLOCK}(w_perm_inv|last_jac)": None,
    r"(encoder|feature_extractor)\..*": None,
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """Scales `[1, C]` to `[C]`, permutation matrices to the channel that comes i-th."""
    if path[-1] == "permutation":
        return tensor.argmax(axis=1)
    return tensor.reshape(-1) if path[-1].startswith("global") else torch_layout(path, tensor)


def from_torch(tensors, state):
    """A state with the tensors of a PyTorch model; `peak` is kept, because it needs training images."""
    trees = [decoder.variables for decoder in state.decoders]
    whole = {kind: {name: leaf for tree in trees for name, leaf in tree[kind].items()} for kind in ("params", "constants")}
    soft = any("rotation" in leaf for leaf in whole["constants"].values())
    table = {
        pattern: target and target.replace("mixing", "rotation" if soft else "permutation") for pattern, target in TABLE.items()
    }
    filled = fill_by_table(whole, tensors, table, layout)
    parts = [{kind: {name: filled[kind][name] for name in tree[kind]} for kind in tree} for tree in trees]
    decoders = [decoder._replace(variables=part) for decoder, part in zip(state.decoders, parts, strict=True)]
    return state._replace(decoders=tuple(decoders))
