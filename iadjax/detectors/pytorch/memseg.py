"""MemSeg: names of the re-implementation's tensors (TooTouch), as "msff.blk1.conv1.weight" and "decoder.conv.weight"."""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State

_NET = r"feature_extractor\."

TABLE = {
    rf"{_NET}(conv1|bn1)\.(\w+)": r"backbone/\1/\2",
    rf"{_NET}layer(\d)\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"backbone/layer\1_\2/\3/\4",
    rf"{_NET}layer(\d)\.(\d+)\.downsample\.(\d)\.(\w+)": r"backbone/layer\1_\2/downsample_\3/\4",
    r"msff\.(blk\d)\.conv1\.(\w+)": r"msff/\1/conv1/\2",
    r"msff\.(blk\d)\.conv2\.(\d)\.(\w+)": r"msff/\1/conv2_\2/\3",
    r"msff\.(blk\d)\.attn\.(\w+)\.(\w+)": r"msff/\1/attn/\2/\3",
    r"msff\.(upconv\d+)\.1\.(\w+)": r"msff/\1/\2",
    r"decoder\.(conv|final_conv)\.(\w+)": r"decoder/\1/\2",
    r"decoder\.(upconv\w+)\.blk\.(\d)\.(\w+)": r"decoder/\1_\2/\3",
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The memory is not among the tensors: it is filled by a fit, or kept."""
    variables = fill_by_table(state.trained.variables, tensors, TABLE)
    return state._replace(trained=state.trained._replace(variables=variables))
