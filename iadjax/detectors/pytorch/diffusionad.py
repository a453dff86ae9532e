"""DiffusionAD: names of the authors' tensors, with "unet." and "seg." before those of the two networks."""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State
from iadjax.detectors.pytorch import _adm

TABLE = {
    **_adm.names(r"unet\.", "denoiser/"),
    r"seg\.(encoder_segment)\.(block\d)\.(\d)\.(\w+)": r"segmentation/\1/\2_\3/\4",
    r"seg\.(decoder_segment)\.(up\d|up_b|db\d|db_b|fin_out)\.(\d)\.(\w+)": r"segmentation/\1/\2_\3/\4",
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The statistics in the state are those of the segmentation network alone."""
    old = state.trained.variables
    trees = {"params": old["params"], "batch_stats": {"segmentation": old["batch_stats"]}}
    filled = fill_by_table(trees, tensors, TABLE, _adm.layout)
    variables = {"params": filled["params"], "batch_stats": filled["batch_stats"]["segmentation"]}
    return state._replace(trained=state.trained._replace(variables=variables))
