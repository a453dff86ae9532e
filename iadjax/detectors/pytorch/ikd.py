"""IKD: the authors' names; their teacher and student are HRNets of which no loss reaches the head."""

from collections.abc import Mapping

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State

TABLE = {
    r"student\.(conv\d|bn\d)\.(\w+)": r"\1/\2",
    r"student\.layer1\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"layer1_\1/\2/\3",
    r"student\.layer1\.(\d+)\.downsample\.(\d)\.(\w+)": r"layer1_\1/downsample_\2/\3",
    r"student\.transition(\d)\.(\d)\.(\d)\.(\w+)": r"transition\1_\2_\3/\4",
    r"student\.transition(\d)\.(\d)\.0\.(\d)\.(\w+)": r"transition\1_\2_0_\3/\4",
    r"student\.stage(\d)\.(\d)\.branches\.(\d)\.(\d)\.(conv\d|bn\d)\.(\w+)": r"stage\1_\2_branches_\3_\4/\5/\6",
    r"student\.stage(\d)\.(\d)\.fuse_layers\.(\d)\.(\d)\.(\d)\.(\w+)": r"stage\1_\2_fuse_layers_\3_\4_\5/\6",
    r"student\.stage(\d)\.(\d)\.fuse_layers\.(\d)\.(\d)\.(\d)\.(\d)\.(\w+)": r"stage\1_\2_fuse_layers_\3_\4_\5_\6/\7",
    r"student\.last_layer\..*": None,
    r"teacher\..*": None,
}


def from_torch(tensors: Mapping[str, np.ndarray], state: State) -> State:
    """The margins, which the authors' files do not have, are kept."""
    trained = {name: state.variables[name] for name in ("params", "batch_stats")}
    filled = fill_by_table(trained, tensors, TABLE)
    return state._replace(variables={**state.variables, **filled})
