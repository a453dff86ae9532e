"""The U-Net of ADM: names of the tensors in the copy that AnoDDPM, DDAD and DiffusionAD use, and their layout."""

import numpy as np

from iadjax.backbones.weights import torch_layout

__all__ = ["layout", "names"]


def names(prefix: str = "", path: str = "") -> dict[str, str | None]:
    """The table of the U-Net's tensors, whose names begin with the pattern `prefix`, to paths below `path`."""
    layers = "in_layers|embed_layers|out_layers"
    return {
        rf"{prefix}(time_embedding|out)\.(\d)\.(\w+)": rf"{path}\1_\2/\3",
        rf"{prefix}(down|up)\.(\d+)\.(\d)\.({layers})\.(\d)\.(\w+)": rf"{path}\1_\2_\3/\4_\5/\6",
        rf"{prefix}(down|up)\.(\d+)\.(\d)\.(\w+)\.(\w+)": rf"{path}\1_\2_\3/\4/\5",
        rf"{prefix}(down)\.(\d+)\.(\d)\.(\w+)": rf"{path}\1_\2_\3/\4",
        rf"{prefix}middle\.(\d)\.({layers})\.(\d)\.(\w+)": rf"{path}middle_\1/\2_\3/\4",
        rf"{prefix}middle\.(\d)\.(\w+)\.(\w+)": rf"{path}middle_\1/\2/\3",
    }


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """Attention has convolutions of one dimension and kernel 1 there, and linear layers here."""
    return torch_layout(path, tensor[..., 0] if tensor.ndim == 3 else tensor)
