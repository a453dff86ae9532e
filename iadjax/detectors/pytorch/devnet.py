"""DevNet: names of the authors' tensors, as "feature_extractor.net.layer1.0.conv1.weight" and "conv.weight"."""

import numpy as np

from iadjax.backbones.weights import torch_layout

_NET = r"feature_extractor\.(?:net\.)?"

TABLE = {
    rf"{_NET}(conv1|bn1)\.(\w+)": r"backbone/\1/\2",
    rf"{_NET}layer(\d)\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"backbone/layer\1_\2/\3/\4",
    rf"{_NET}layer(\d)\.(\d+)\.downsample\.(\d)\.(\w+)": r"backbone/layer\1_\2/downsample_\3/\4",
    r"conv\.(\w+)": r"conv/\1",
    # the classifier of ImageNet
    rf"{_NET}fc\..*": None,
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """The scoring head `[1, C, 1, 1]` and `[1]` to `[C]` and a scalar."""
    if path[1] == "conv":
        return tensor.reshape(-1) if path[-1] == "kernel" else tensor[0]
    return torch_layout(path, tensor)
