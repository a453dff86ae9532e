"""DDAD: names of the authors' tensors, with "unet." and "feature." before those of the network and of the adapted ResNet."""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State
from iadjax.detectors.pytorch import _adm

TABLE = {
    **_adm.names(r"unet\.", "denoiser/"),
    r"feature\.(conv1|bn1)\.(\w+)": r"features/\1/\2",
    r"feature\.layer(\d)\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"features/layer\1_\2/\3/\4",
    r"feature\.layer(\d)\.(\d+)\.downsample\.(\d)\.(\w+)": r"features/layer\1_\2/downsample_\3/\4",
    r"feature\.(?:layer4|fc)\..*": None,
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """Both networks; the largest distances of training images stay those of the state."""
    first, second = state.denoiser.variables, state.features.variables
    trees = {
        "params": {"denoiser": first["params"], "features": second["params"]},
        "batch_stats": {"features": second["batch_stats"]},
    }
    filled = fill_by_table(trees, tensors, TABLE, _adm.layout)
    features = {kind: filled[kind]["features"] for kind in ("params", "batch_stats")}
    return state._replace(
        denoiser=state.denoiser._replace(variables={"params": filled["params"]["denoiser"]}),
        features=state.features._replace(variables=features),
    )
