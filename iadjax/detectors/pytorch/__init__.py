"""Trained detectors of other libraries: PyTorch state dicts become our states.

A state dict here is a mapping of names to arrays; bring it as safetensors (`safetensors.torch.save_file`), because pickled
files are code and are never read. Each module here holds the names of one detector's tensors.
"""

import importlib
import importlib.util
from collections.abc import Mapping

import numpy as np

from iadjax.detector import State
from iadjax.detectors import factory
from iadjax.errors import UserError

__all__ = ["from_torch"]


def from_torch(name: str, tensors: Mapping[str, np.ndarray], state: State) -> State:
    """The state of the detector `name` with the tensors of a PyTorch model.

    Args:
      name: a detector that has a module here, whose docstring says whose names it accepts.
      tensors: the state dict.
      state: a state of the same configuration (`Detector.init`, or that of a run), whose other parts are kept.

    Raises:
      UserError: the detector has no such import, or a tensor is missing, unknown or of another shape (named).
    """
    factory(name)
    module = f"{__name__}.{name}"
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{name} has nothing to import: it keeps no trained network")
    return importlib.import_module(module).from_torch({key: np.asarray(value) for key, value in tensors.items()}, state)
