"""DRAEM: names of tensors in other libraries."""

import numpy as np

from iadjax.backbones import weights
from iadjax.detector import State

__all__ = ["from_torch"]


def from_torch(tensors, state: State) -> State:
    """The state with the tensors of the authors' code (both networks' in one dict), or of anomalib.

    The authors read images as BGR, and anomalib puts the given image before the restored one; both are turned round.
    """
    anomalib = any("reconstructive_subnetwork." in name for name in tensors)
    renamed = {}
    for name, tensor in tensors.items():
        for prefix in ("model.", "reconstructive_subnetwork.", "discriminative_subnetwork."):
            name = name.removeprefix(prefix)
        if name == "encoder_segment.block1.0.weight" and anomalib:
            tensor = np.concatenate([tensor[:, 3:], tensor[:, :3]], axis=1)
        elif not anomalib and name == "encoder_segment.block1.0.weight":
            tensor = np.concatenate([tensor[:, 2::-1], tensor[:, :2:-1]], axis=1)
        elif not anomalib and name == "encoder.block1.0.weight":
            tensor = tensor[:, ::-1]
        elif not anomalib and name in ("decoder.fin_out.0.weight", "decoder.fin_out.0.bias"):
            tensor = tensor[::-1]
        renamed[name] = tensor
    return state._replace(variables=weights.fill(state.variables, renamed))
