"""PyramidFlow: names of the tensors of the authors' flow, in the order of its modules ("nf.module_list.")."""

import re

import numpy as np

from iadjax.backbones.weights import fill_by_table, torch_layout

_BLOCK = r"nf\.module_list\.(\d+)\."

TABLE = {
    rf"{_BLOCK}affineParams\.conv\.([02])\.weight": r"module_list_\1/conv_\2/weight",
    rf"{_BLOCK}affineParams\.norm\.running_mean": r"module_list_\1/mean",
    rf"{_BLOCK}conv1x1\.(w_[lsu])": r"module_list_\1/\2",
    rf"{_BLOCK}conv1x1\.w_p": r"module_list_\1/lu/p",
    rf"{_BLOCK}conv1x1\.s_sign": r"module_list_\1/lu/sign",
    rf"{_BLOCK}conv1x1\.(u_mask|l_mask|l_eye)": None,
    r"inconv\..*": None,
}


def from_torch(tensors, state):
    """The state with the flow; the mean of a flow that was not trained, one number, becomes one of every position."""
    means = state.trained.variables["batch_stats"]
    tensors = dict(tensors)
    for name in tensors:
        if match := re.fullmatch(rf"{_BLOCK}affineParams\.norm\.running_mean", name):
            # [1, 1, H, W] or [1, C, 1, 1]
            mean = np.asarray(tensors[name])[0].transpose(1, 2, 0)
            tensors[name] = np.broadcast_to(mean, means[f"module_list_{match[1]}"]["mean"].shape)
    variables = fill_by_table(state.trained.variables, tensors, TABLE, _layout)
    return state._replace(trained=state.trained._replace(variables=variables))


def _layout(path, tensor):
    return torch_layout(path, tensor) if path[-1] == "kernel" else tensor
