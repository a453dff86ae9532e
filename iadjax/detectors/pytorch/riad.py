"""RIAD: names of the tensors of the known re-implementation's U-Net."""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State

TABLE = {
    r"((?:down|up)\d)\.(\w+)\.(\w+)": r"\1/\2/\3",
    r"conv_final\.0\.(\w+)": r"conv_final/\1",
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The sets of cells, which prediction draws once, are kept."""
    network = {name: part for name, part in state.variables.items() if name != "cells"}
    return state._replace(variables={**state.variables, **fill_by_table(network, tensors, TABLE)})
