"""RD4AD: names of tensors in other libraries."""

from iadjax.backbones import weights
from iadjax.detector import State

__all__ = ["from_torch"]


def from_torch(tensors, state: State) -> State:
    """The state with the tensors of the authors' code ("bn." and "decoder." before the names) or of anomalib ("bottleneck.")"""
    renamed = {name.removeprefix("model.").replace("bottleneck.", "bn.", 1): tensor for name, tensor in tensors.items()}
    # conv4 and bn4 of the authors' bottleneck are never used; the teacher's tensors are the backbone's
    ignored = r"bn\.(conv4|bn4)\..*|(feature_extractor|encoder)\..*"
    return state._replace(variables=weights.fill(state.variables, renamed, ignored=ignored))
