"""Trained detectors of other libraries: PyTorch state dicts become our states.

A state dict here is a mapping of names to arrays. Save it as safetensors (`safetensors.torch.save_file`): pickled files are
code and are never read.

Each module here is one detector's table: `TABLE` maps patterns of tensor names, the authors' and anomalib's, to paths in our
variables (`backbones.weights.fill_by_table`). A module may also have

- `prepare(tensors) -> tensors`: reorders the tensors of one code as those of the other;
- `layout(path, tensor) -> tensor`: for layouts that `torch_layout` does not have;
- `from_torch(tensors, state) -> state`: for states with more than `variables`.
"""

import importlib
import importlib.util
from collections.abc import Callable, Mapping

import numpy as np

from iadjax.backbones.weights import Table, fill_by_table, torch_layout
from iadjax.detector import State
from iadjax.detectors import factory
from iadjax.errors import UserError

__all__ = ["fill_averaged", "fill_networks", "from_torch", "table"]


def from_torch(name: str, tensors: Mapping[str, np.ndarray], state: State) -> State:
    """The state of the detector `name` with the tensors of a PyTorch model.

    Args:
      name: a detector that has a module here, whose docstring says whose names it accepts.
      tensors: the state dict.
      state: a state of the same configuration (`Detector.init`, or that of a run), whose other parts are kept.

    Raises:
      UserError: the detector has no such import, or a tensor is missing, unknown or of another shape (named).
    """
    module = table(name)
    tensors = {key: np.asarray(value) for key, value in tensors.items()}
    if hasattr(module, "prepare"):
        tensors = module.prepare(tensors)
    if hasattr(module, "from_torch"):
        return module.from_torch(tensors, state)
    layout = getattr(module, "layout", torch_layout)
    return state._replace(variables=fill_by_table(state.variables, tensors, module.TABLE, layout))


def fill_averaged(tensors: Mapping[str, np.ndarray], state: State, table: Table, layout: Callable = torch_layout) -> State:
    """A state whose `network` is an `Averaged`: one set of tensors is both the network and its average."""
    trained = state.network.trained
    variables = fill_by_table(trained.variables, tensors, table, layout)
    network = state.network._replace(trained=trained._replace(variables=variables), average=variables["params"])
    return state._replace(network=network)


def fill_networks(tensors: Mapping[str, np.ndarray], state: State, table: Table) -> State:
    """A state whose fields are each a `Trained`, filled by one table; its paths begin with the names of the fields."""
    networks = state._asdict()
    kinds = sorted({kind for trained in networks.values() for kind in trained.variables})
    trees = {
        kind: {name: trained.variables[kind] for name, trained in networks.items() if kind in trained.variables}
        for kind in kinds
    }
    filled = fill_by_table(trees, tensors, table)
    parts = {name: {kind: filled[kind][name] for kind in kinds if name in trees[kind]} for name in networks}
    return type(state)(**{name: trained._replace(variables=parts[name]) for name, trained in networks.items()})


def table(name: str):
    """The module of the detector `name`; a UserError if it has none."""
    factory(name)
    module = f"{__name__}.{name}"
    if importlib.util.find_spec(module) is None:
        raise UserError(f"{name} has nothing to import: it keeps no trained network")
    return importlib.import_module(module)
