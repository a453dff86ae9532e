"""DeSTSeg: names of the authors' tensors, as "student_net.encoder.conv1.weight" and "segmentation_net.res.0.conv1.weight"."""

import numpy as np

from iadjax.detector import State
from iadjax.detectors.pytorch import fill_networks

_HEAD = r"segmentation_net\.head\."
_STUDENT = r"student_net\."

TABLE = {
    rf"{_STUDENT}encoder\.(conv1|bn1)\.(\w+)": r"student/encoder/\1/\2",
    rf"{_STUDENT}encoder\.layer(\d)\.(\d)\.(conv\d|bn\d)\.(\w+)": r"student/encoder/layer\1_\2/\3/\4",
    rf"{_STUDENT}encoder\.layer(\d)\.(\d)\.downsample\.(\d)\.(\w+)": r"student/encoder/layer\1_\2/downsample_\3/\4",
    rf"{_STUDENT}decoder_layer(\d)\.(\d)\.(conv\d|bn\d)\.(\w+)": r"student/decoder_layer\1_\2/\3/\4",
    rf"{_STUDENT}decoder_layer(\d)\.(\d)\.downsample\.(\d)\.(\w+)": r"student/decoder_layer\1_\2/downsample_\3/\4",
    r"segmentation_net\.res\.(\d)\.(conv\d|bn\d)\.(\w+)": r"segmentation/res_\1/\2/\3",
    r"segmentation_net\.res\.(\d)\.downsample\.(\d)\.(\w+)": r"segmentation/res_\1/downsample_\2/\3",
    rf"{_HEAD}0\.aspp_feature_extractors\.(\d)\.(?:1\.)?(conv|norm)\.(\w+)": r"segmentation/aspp_\1_\2/\3",
    rf"{_HEAD}0\.aspp_fusion_layer\.(conv|norm)\.(\w+)": r"segmentation/fusion_\1/\2",
    rf"{_HEAD}(\d)\.(\w+)": r"segmentation/head_\1/\2",
    r"teacher_net\..*": None,
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """Both networks; each of the state's trees has its own part."""
    return fill_networks(tensors, state, TABLE)
