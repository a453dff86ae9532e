"""PNI: names of the tensors of the authors' network of neighbours, with or without "dist." before them.

The rest of a state, coresets and histograms, stays as it is.
"""

import numpy as np

from iadjax.backbones.weights import fill_by_table, torch_layout

_NAME = r"(?:dist\.)?"

TABLE = {
    rf"{_NAME}(first_layer|last_layer)\.(\d)\.(weight|bias)": r"\1_\2/\3",
    rf"{_NAME}(first_layer)\.1\.(running_mean|running_var)": r"\1_1/\2",
    rf"{_NAME}hidden_layers\.(\d+)\.(\d)\.(weight|bias|running_mean|running_var)": r"hidden_layers_\1_\2/\3",
    rf"{_NAME}.*num_batches_tracked": None,
}


def from_torch(tensors, state):
    """The state with the network; the authors' first layer sees the neighbours one after the other, without one of them."""
    kernel = state.neighborhood.variables["params"]["first_layer_0"]["kernel"]
    side, _, depth, hidden = kernel.shape
    # the entry behind the centre is the one that the authors leave out
    removed = side * side // 2 + 1

    def layout(path, tensor):
        if path[1:] == ("first_layer_0", "kernel"):
            rows = tensor.T.reshape(-1, depth, hidden)
            return np.insert(rows, removed, 0, axis=0).reshape(kernel.shape)
        if path[-1] == "kernel":
            return tensor.T[None, None]
        return torch_layout(path, tensor)

    variables = fill_by_table(state.neighborhood.variables, tensors, TABLE, layout)
    return state._replace(neighborhood=state.neighborhood._replace(variables=variables))
