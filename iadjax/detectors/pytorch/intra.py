"""InTra: names of the tensors of the known re-implementation."""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State

_LAYER = r"encoder\.layers\.(\d+)\."

TABLE = {
    r"(x_inpaint|pos_embedding_glb)": r"\1",
    r"(lin_proj)\.(\w+)": r"\1/\2",
    rf"{_LAYER}self_attn\.(MLP_[qk])\.(\d)\.(\w+)": r"layers_\1/\2_\3/\4",
    rf"{_LAYER}self_attn\.(linear\w*)\.(\w+)": r"layers_\1/\2/\3",
    rf"{_LAYER}feed_forward\.(w_\d)\.(\w+)": r"layers_\1/\2/\3",
    rf"{_LAYER}sublayer\.(\d)\.norm\.(\w+)": r"layers_\1/sublayer_\2_norm/\3",
    r"encoder\.norm\.(\w+)": r"norm/\1",
    r"generator\.(proj)\.(\w+)": r"\1/\2",
    # never used there: positions in the window, and a second name of the first block
    r"pos_embedding_loc": None,
    r"(self_attn|feed_forward|encoder_layer)\..*": None,
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The network; the mean map of the training images is kept."""
    tensors = {name: tensor[0] if name == "pos_embedding_glb" else tensor for name, tensor in tensors.items()}
    return state._replace(trained=state.trained._replace(variables=fill_by_table(state.trained.variables, tensors, TABLE)))
