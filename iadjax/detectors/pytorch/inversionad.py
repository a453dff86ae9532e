"""InversionAD: names of the authors' tensors, those of the denoiser."""

import numpy as np

from iadjax.backbones.weights import torch_layout
from iadjax.detector import State
from iadjax.detectors.pytorch import fill_averaged

TABLE = {
    r"net\.pos_embed": r"pos_embed",
    r"net\.x_embedder\.proj\.(\w+)": r"x_embedder_proj/\1",
    r"net\.t_embedder\.mlp\.(\d)\.(\w+)": r"t_embedder_mlp_\1/\2",
    r"net\.blocks\.(\d+)\.attn\.(qkv|proj)\.(\w+)": r"blocks_\1/attn/\2/\3",
    r"net\.blocks\.(\d+)\.mlp\.(fc\d)\.(\w+)": r"blocks_\1/mlp_\2/\3",
    r"net\.blocks\.(\d+)\.adaLN_modulation\.1\.(\w+)": r"blocks_\1/adaLN_modulation_1/\2",
    r"net\.final_layer\.(linear)\.(\w+)": r"final_layer_\1/\2",
    r"net\.final_layer\.adaLN_modulation\.1\.(\w+)": r"final_layer_adaLN_modulation_1/\1",
    # embeddings of classes and of tokens that come without a grid: nothing reads them
    r"cls_embed\..*|net\.y_embedder\..*|net\.x_embedder_linear\..*": None,
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """A convolution of kernel 1 embeds the patches there, and a linear layer here."""
    return torch_layout(path, tensor[..., 0, 0] if tensor.ndim == 4 else tensor)


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """One set of tensors is both the network and its average; the moments of scores stay those of the state."""
    return fill_averaged(tensors, state, TABLE, layout)
