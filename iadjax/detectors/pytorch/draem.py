"""DRAEM: names of the authors' tensors (both networks' in one dict), and of anomalib's."""

import numpy as np

TABLE = {
    r"(?:\w+\.)?(encoder|encoder_segment)\.(block\d)\.(\d)\.(\w+)": r"\1/\2_\3/\4",
    r"(?:\w+\.)?(decoder|decoder_segment)\.(up\d|up_b|db\d|db_b|fin_out)\.(\d)\.(\w+)": r"\1/\2_\3/\4",
}


def prepare(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The channels in our order: RGB, and the restored image before the given one.

    The authors read images as BGR; anomalib puts the given image before the restored one.
    """
    anomalib = any("reconstructive_subnetwork." in name for name in tensors)
    return {name: _reordered(name, tensor, anomalib) for name, tensor in tensors.items()}


def _reordered(name: str, tensor: np.ndarray, anomalib: bool) -> np.ndarray:
    if name.endswith("encoder_segment.block1.0.weight"):
        first, second = tensor[:, :3], tensor[:, 3:]
        return np.concatenate([second, first] if anomalib else [first[:, ::-1], second[:, ::-1]], axis=1)
    if anomalib:
        return tensor
    if name.endswith("encoder.block1.0.weight"):
        return tensor[:, ::-1]
    return tensor[::-1] if ".fin_out.0." in f".{name}" and "segment" not in name else tensor
