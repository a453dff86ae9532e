"""GLASS: names of the authors' tensors ("pre_projection." and "discriminator." before the names) and of anomalib's."""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State

TABLE = {
    r"(?:pre_projection|projection)\.layers\.0fc\.(\w+)": r"adaptor/layers_0fc/\1",
    r"discriminator\.body\.block1\.(\d)\.(\w+)": r"discriminator/body_block1_\1/\2",
    r"discriminator\.tail\.0\.(\w+)": r"discriminator/tail/\1",
    r"(?:backbone|forward_modules|anomaly_segmentor)\..*": None,
    r"_img_(?:mean|std)": None,
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The statistics in the state are those of the discriminator alone."""
    old = state.trained.variables
    filled = fill_by_table({"params": old["params"], "batch_stats": {"discriminator": old["batch_stats"]}}, tensors, TABLE)
    variables = {"params": filled["params"], "batch_stats": filled["batch_stats"]["discriminator"]}
    return state._replace(trained=state.trained._replace(variables=variables))
