"""UniNet: names of anomalib's tensors, and of the parts of the authors' checkpoints ("tt.", "bn.", "st." before the names)."""

import numpy as np

from iadjax.backbones.weights import fill_by_table, torch_layout
from iadjax.detector import State

_TARGET, _BOTTLENECK, _STUDENT = r"(?:tt|teachers\.target_teacher)\.", r"(?:bn|bottleneck)\.", r"(?:st|student)\."
_BLOCK, _OURS = rf"{_BOTTLENECK}bn_layer\.0\.(\d+)\.", r"student/bn/bn_layer_\1"

TABLE = {
    rf"{_TARGET}(conv1|bn1)\.(\w+)": r"target/\1/\2",
    rf"{_TARGET}layer(\d)\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"target/layer\1_\2/\3/\4",
    rf"{_TARGET}layer(\d)\.(\d+)\.downsample\.(\d)\.(\w+)": r"target/layer\1_\2/downsample_\3/\4",
    # the second branch has kernels of 3 x 3 as well
    rf"{_BLOCK}conv3x3\.(\w+)": rf"{_OURS}/branch0_conv1/\2",
    rf"{_BLOCK}bn2\.(\w+)": rf"{_OURS}/branch0_bn1/\2",
    rf"{_BLOCK}conv3x3_\.(\w+)": rf"{_OURS}/branch0_conv2/\2",
    rf"{_BLOCK}bn5\.(\w+)": rf"{_OURS}/branch0_bn2/\2",
    rf"{_BLOCK}conv7x7\.(\w+)": rf"{_OURS}/branch1_conv1/\2",
    rf"{_BLOCK}bn4\.(\w+)": rf"{_OURS}/branch1_bn1/\2",
    rf"{_BLOCK}conv7x7_\.(\w+)": rf"{_OURS}/branch1_conv2/\2",
    rf"{_BLOCK}bn6\.(\w+)": rf"{_OURS}/branch1_bn2/\2",
    rf"{_BLOCK}(conv3|bn3)\.(\w+)": rf"{_OURS}/\2/\3",
    rf"{_BLOCK}downsample\.(\d)\.(\w+)": rf"{_OURS}/downsample_\2/\3",
    rf"{_BOTTLENECK}(conv[1-3]|bn[1-3])\.(\w+)": r"student/bn/\1/\2",
    rf"{_STUDENT}layer(\d)\.(\d+)\.(conv\d|bn\d)\.(\w+)": r"student/decoder/layer\1_\2/\3/\4",
    rf"{_STUDENT}layer(\d)\.(\d+)\.upsample\.(\d)\.(\w+)": r"student/decoder/layer\1_\2/upsample_\3/\4",
    r"dfs\.(theta\d)": r"theta/\1",
    rf"(?:{_STUDENT})?fc\.(\w+)": r"fc/\1",
    # never used
    rf"{_BLOCK}bn7\..*": None,
    rf"{_BOTTLENECK}(conv4|bn4)\..*": None,
    # the source teacher's tensors are the backbone's
    r"teachers\.source_teacher\..*": None,
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """Theta is 1, so 0 before the sigmoid, in the authors' checkpoints, which do not have it; they all have the head."""
    theta, head = (state.variables["params"].get(name, {}) for name in ("theta", "fc"))
    unused = [] if theta else ["dfs."]
    unused += [] if head else ["fc.", "st.fc."]
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(tuple(unused))}
    missing = {f"dfs.{name}": np.zeros(len(leaf), np.float32) for name, leaf in theta.items()}
    return state._replace(variables=fill_by_table(state.variables, {**missing, **kept}, TABLE, layout))


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """Thetas `[1, C, 1, 1]` to `[C]`."""
    return tensor.reshape(-1) if path[-2] == "theta" else torch_layout(path, tensor)
