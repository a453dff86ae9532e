"""AnoDDPM: names of the authors' tensors, of the running average or of the network itself."""

import numpy as np

from iadjax.detector import State
from iadjax.detectors.pytorch import _adm, fill_averaged

TABLE = _adm.names()


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """One set of tensors is both the network and its average."""
    return fill_averaged(tensors, state, TABLE, _adm.layout)
