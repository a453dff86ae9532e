"""Patch SVDD: names of the authors' tensors, as "enc.conv1.weight" and "conv1.weight" of their `enchier.pkl`.

Their files hold the encoders. The classifiers, which only training needs, are kept, or read from the names "cls64." and
"cls32." if these are there; then "enc." stands before the names of the encoders.
"""

import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State

TABLE = {
    r"enc\.enc\.(conv\d)\.(\w+)": r"small/\1/\2",
    r"enc\.(conv\d)\.(\w+)": r"big/\1/\2",
    r"cls32\.(fc\d)\.(\w+)": r"classifier_small/\1/\2",
    r"cls64\.(fc\d)\.(\w+)": r"classifier_big/\1/\2",
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The mean image and the embeddings are not among the tensors: they are made by a fit, or kept."""
    if not any(name.startswith("cls") for name in tensors):
        tensors = {f"enc.{name}": tensor for name, tensor in tensors.items()}
    training = hasattr(state, "trained")
    params = (state.trained if training else state).variables["params"]
    wanted = params if any(name.startswith("cls") for name in tensors) else {name: params[name] for name in ("small", "big")}
    variables = {"params": {**params, **fill_by_table({"params": wanted}, tensors, TABLE)["params"]}}
    if training:
        return state._replace(trained=state.trained._replace(variables=variables))
    return state._replace(variables=variables)
