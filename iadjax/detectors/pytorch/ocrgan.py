"""OCR-GAN: names of the authors' tensors, netG's and netD's in one dict.

Their files have no layers of channel selection ("cs.0.fc.weight" ...), because their code draws these anew in every pass. So
those have to be added.
"""

import numpy as np

from iadjax.detector import State
from iadjax.detectors.pytorch import fill_networks

# a level of the U-Net lies inside the one before; the first one's halving has no ReLU before it
TABLE = {
    rf"(?:gen\.model\.)?{'submodule[.]0[.]' * level}{way}_{theirs}\.{number}\.(\w+)": (
        rf"generator/{ours}_{level}_{way}{'_norm' if norm else ''}/\1"
    )
    for level in range(11)
    for theirs, ours in (("lap", "high"), ("res", "low"))
    for way in ("down", "up")
    for norm in (False, True)
    for number in (1 + norm - (way == "down" and not level),)
} | {
    r"cs\.(\d+)\.fc\.(\w+)": r"generator/select_\1/fc/\2",
    r"cs\.(\d+)\.fcs\.(\d)\.(\w+)": r"generator/select_\1/fcs_\2/\3",
    r"(?:dis\.)?feat\.initial-conv-\d+-\d+\.(\w+)": r"discriminator/feat/initial_conv/\1",
    r"(?:dis\.)?feat\.pyramid-\d+-(\d+)-conv\.(\w+)": r"discriminator/feat/pyramid_\1_conv/\2",
    r"(?:dis\.)?feat\.pyramid-(\d+)-batchnorm\.(\w+)": r"discriminator/feat/pyramid_\1_batchnorm/\2",
    r"(?:dis\.)?feat\.final-\d+-\d+-conv\.(\w+)": r"discriminator/feat/final_conv/\1",
    r"(?:dis\.)?clas\.classifier\.(\w+)": r"discriminator/classifier/\1",
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """Both networks; each of the state's trees has its own part."""
    return fill_networks(tensors, state, TABLE)
