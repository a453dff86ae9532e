"""VT-ADL: names of the authors' tensors, the networks' two files in one dict below "vt_ae" and "mdn"."""

import numpy as np

from iadjax.backbones.weights import torch_layout

_VT = r"(?:vt_ae\.)?vt\."
_LAYER = rf"{_VT}transformer\.layers\.(\d+)\."

TABLE = {
    rf"{_VT}(pos_embedding|cls_token)": r"encoder/\1",
    rf"{_VT}(patch_to_embedding)\.(\w+)": r"encoder/\1/\2",
    rf"{_LAYER}(\d)\.fn\.norm\.(\w+)": r"encoder/layers_\1/norm_\2/\3",
    rf"{_LAYER}0\.fn\.fn\.to_qkv\.(\w+)": r"encoder/layers_\1/to_qkv/\2",
    rf"{_LAYER}0\.fn\.fn\.to_out\.0\.(\w+)": r"encoder/layers_\1/to_out/\2",
    rf"{_LAYER}1\.fn\.fn\.net\.(\d)\.(\w+)": r"encoder/layers_\1/net_\2/\3",
    r"(?:vt_ae\.)?decoder\.decoder2\.(\d+)\.(running_\w+)": r"decoder2_\1/\2",
    r"(?:vt_ae\.)?decoder\.decoder2\.(\d+)\.(\w+)": r"restorer/decoder2_\1/\2",
    r"(?:vt_ae\.)?Digcap\.W": r"restorer/capsule",
    r"(?:mdn\.)?(pi|mu|sigma_sq)\.(\w+)": r"density/\1/\2",
}


def layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """There is one output capsule."""
    return tensor[0] if path[-1] == "capsule" else torch_layout(path, tensor)
