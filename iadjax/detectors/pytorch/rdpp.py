"""RD++: names of the authors' tensors ("proj.", "bn." and "decoder." before the names)."""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State
from iadjax.detectors.pytorch import rd4ad

TABLE = {
    r"proj\.proj_(\w)\.proj\.(\d+)\.(\w+)": r"proj/proj_\1/proj_\2/\3",
    **{pattern: path and f"student/{path}" for pattern, path in rd4ad.TABLE.items()},
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The statistics in the state are those of the student alone."""
    trees = {"params": state.variables["params"], "batch_stats": {"student": state.variables["batch_stats"]}}
    filled = fill_by_table(trees, tensors, TABLE)
    return state._replace(variables={"params": filled["params"], "batch_stats": filled["batch_stats"]["student"]})
