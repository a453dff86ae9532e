"""DSR: names of the authors' tensors and of anomalib's.

The authors' files are one dict here, below "vq", "sub_lo", "sub_hi", "decode", "seg" and "up".
"""

import re
from typing import NamedTuple

import numpy as np

from iadjax.detector import State
from iadjax.detectors.families.gradient import Trained
from iadjax.detectors.pytorch import fill_networks

_VQ = r"(?:vq|discrete_latent_model)\."
_STACK = r"_residual_stack\._layers\.(\d+)\._block\.(\d)"
_UNET = r"\.unet\.(encoder|decoder)\.(\w+)\.(\d)\.(\w+)"
_DECODE = r"(?:decode|image_reconstruction_network)\."

TABLE = {
    rf"{_VQ}_(encoder_[tb]|decoder_b)\._(conv_\w+)\.(\w+)": r"discrete/\1/\2/\3",
    rf"{_VQ}_(encoder_[tb]|decoder_b)\.{_STACK}\.(\w+)": r"discrete/\1/layers_\2_block_\3/\4",
    rf"{_VQ}_(pre_vq_conv_\w+)\.(\w+)": r"discrete/\1/\2",
    rf"{_VQ}(upsample_t)\.(\w+)": r"discrete/\1/\2",
    rf"{_VQ}_(vq_vae_\w+)\._embedding\.weight": r"discrete/\1/embedding",
    rf"{_VQ}_(vq_vae_\w+)\._ema_cluster_size": r"discrete/\1/size",
    rf"{_VQ}_(vq_vae_\w+)\._ema_w": r"discrete/\1/total",
    rf"(?:subspace_restriction_module_|sub_)(lo|hi){_UNET}": r"restoring/sub_\1/\2_\3_\4/\5",
    rf"{_DECODE}(block\d)\.(\d)\.(\w+)": r"restoring/decode/\1_\2/\3",
    rf"{_DECODE}(pre_vq_conv|upblock\d)\.(\w+)": r"restoring/decode/\1/\2",
    rf"{_DECODE}_(conv_\w+)\.(\w+)": r"restoring/decode/decoder/\1/\2",
    rf"{_DECODE}{_STACK}\.(\w+)": r"restoring/decode/decoder/layers_\1_block_\2/\3",
    rf"(?:seg|anomaly_detection_module){_UNET}": r"restoring/seg/\1_\2_\3/\4",
    rf"(?:up|upsampling_module){_UNET}": r"refining/\1_\2_\3/\4",
}


class Discrete(NamedTuple):
    """The part of the state that the authors publish."""

    discrete: Trained


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """All networks, or the discrete autoencoder alone, as the authors publish it: then the others are kept.

    Anomalib keeps no moving means of its codes: each then counts as used once in a step.
    """
    tensors = dict(tensors)
    for name in [name for name in tensors if name.endswith("._embedding.weight")]:
        part = name.removesuffix("_embedding.weight")
        tensors.setdefault(f"{part}_ema_cluster_size", np.ones(len(tensors[name]), np.float32))
        tensors.setdefault(f"{part}_ema_w", tensors[name])
    if all(re.match(_VQ, name) for name in tensors):
        return state._replace(discrete=fill_networks(tensors, Discrete(state.discrete), TABLE).discrete)
    return fill_networks(tensors, state, TABLE)
