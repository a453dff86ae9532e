"""GANomaly: names of the authors' tensors (netG and netD in one dict) and of anomalib's."""

import numpy as np

from iadjax.detector import State
from iadjax.detectors.pytorch import fill_networks

# the authors' sequences have one name, anomalib's have several
_PART = r"(?:generator\.)?(encoder1|decoder|encoder2)\.\w+\."

TABLE = {
    rf"{_PART}initial-conv-\d+-\d+\.(\w+)": r"generator/\1/initial_conv/\2",
    rf"{_PART}initial-\d+-(\d+)-convt\.(\w+)": r"generator/\1/initial_\2_convt/\3",
    rf"{_PART}initial-(\d+)-batchnorm\.(\w+)": r"generator/\1/initial_\2_batchnorm/\3",
    rf"{_PART}extra-layers-(\d+)-\d+-(conv|batchnorm)\.(\w+)": r"generator/\1/extra_\2_\3/\4",
    rf"{_PART}pyramid-\d+-(\d+)-(convt?)\.(\w+)": r"generator/\1/pyramid_\2_\3/\4",
    rf"{_PART}pyramid-(\d+)-batchnorm\.(\w+)": r"generator/\1/pyramid_\2_batchnorm/\3",
    rf"{_PART}final-\d+-\d+-(convt?)\.(\w+)": r"generator/\1/final_\2/\3",
    r"(?:generator\.)?(encoder1|encoder2)\.final_conv_layer\.(\w+)": r"generator/\1/final_conv/\2",
    r"(?:discriminator\.)?(features|classifier)\.(\d+)\.(\w+)": r"discriminator/\1_\2/\3",
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """Both networks; each of the state's trees has its own part."""
    return fill_networks(tensors, state, TABLE)
