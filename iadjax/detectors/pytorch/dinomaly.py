"""Dinomaly: names of the authors' tensors, as "bottleneck.0.fc1.weight" and "decoder.0.attn.qkv.weight", and of anomalib's."""

import numpy as np

TABLE = {
    r"bottleneck\.0\.(fc\d)\.(\w+)": r"bottleneck_0/\1/\2",
    r"decoder\.(\d+)\.(norm\d)\.(\w+)": r"decoder_\1/\2/\3",
    r"decoder\.(\d+)\.(attn|mlp)\.(\w+)\.(\w+)": r"decoder_\1/\2/\3/\4",
    # the backbone's, and a constant
    r"encoder\..*|gaussian_blur\..*": None,
}


def prepare(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """With biases of zero where anomalib's feed-forward networks have none."""
    return tensors | {
        name.removesuffix("weight") + "bias": np.zeros(tensor.shape[0], tensor.dtype)
        for name, tensor in tensors.items()
        if name.endswith((".fc1.weight", ".fc2.weight")) and name.removesuffix("weight") + "bias" not in tensors
    }
