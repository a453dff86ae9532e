"""SimpleNet: names of the authors' tensors ("pre_projection." and "discriminator." before the names)."""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State

TABLE = {
    r"pre_projection\.layers\.0fc\.(\w+)": r"adaptor/layers_0fc/\1",
    r"discriminator\.body\.block1\.(\d)\.(\w+)": r"discriminator/body_block1_\1/\2",
    r"discriminator\.tail\.(\w+)": r"discriminator/tail/\1",
    r"backbone\..*": None,
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The statistics in the state are those of the discriminator alone."""
    trees = {"params": state.variables["params"], "batch_stats": {"discriminator": state.variables["batch_stats"]}}
    filled = fill_by_table(trees, tensors, TABLE)
    return state._replace(variables={"params": filled["params"], "batch_stats": filled["batch_stats"]["discriminator"]})
