"""CFA: names of anomalib's tensors and of the authors' ("Descriptor." and "C").

Only the authors train the radius and keep the memory C in the state dict; anomalib keeps the memory as "memory_bank". Without
one, the first phase must run.
"""

import jax.numpy as jnp
import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State
from iadjax.detectors.memory_bank.cfa import Adapting

TABLE = {
    r"descriptor\.layer\.conv2d\.(\w+)": r"\1",
    r"Descriptor\.layer\.conv\.(\w+)": r"\1",
    r"r": r"radius",
    # CoordConv inherits a convolution that it does not use
    r"[dD]escriptor\.layer\.(weight|bias)": None,
    r"feature_extractor\..*|memory_bank|C": None,
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """Kernels `[O, I, 1, 1]` to `[I, O]`; the radius is a vector of one number there."""
    if path[-1] == "kernel":
        return tensor[:, :, 0, 0].T
    return tensor.reshape(()) if path[-1] == "radius" else tensor


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The descriptor, the radius where it is given, and the memory, `[D, M]` there, where it is."""
    variables = state.trained.variables
    tensors = {"r": np.asarray(variables["params"]["radius"]), **tensors}
    filled = fill_by_table(variables, tensors, TABLE, layout)
    trained = state.trained._replace(variables=filled)
    memory = tensors.get("C", tensors.get("memory_bank"))
    if memory is None:
        return state._replace(trained=trained)
    return Adapting(trained, jnp.asarray(memory.T, jnp.float32))
