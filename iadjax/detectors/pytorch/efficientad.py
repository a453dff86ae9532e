"""EfficientAD: names of anomalib's tensors, and of Nelson's with "student." and "autoencoder." before its numbers.

anomalib's tensors include the statistics of the teacher and the quantiles, which are kept. Without them the first two phases
and the last one must run. The teacher's tensors are those of the backbone.
"""

import jax.numpy as jnp
import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State
from iadjax.detectors.teacher_student.efficientad import Calibrated

TABLE = {
    r"student\.(conv\d)\.(\w+)": r"student/\1/\2",
    r"ae\.(?:en|de)coder\.enconv(\d)\.(\w+)": r"autoencoder/encoder_enconv\1/\2",
    r"ae\.(?:en|de)coder\.deconv(\d)\.(\w+)": r"autoencoder/decoder_deconv\1/\2",
    # positions in Nelson's sequences; a Dropout follows the ReLU of the first six steps of the decoder
    r"student\.0\.(\w+)": r"student/conv1/\1",
    r"student\.3\.(\w+)": r"student/conv2/\1",
    r"student\.6\.(\w+)": r"student/conv3/\1",
    r"student\.8\.(\w+)": r"student/conv4/\1",
    r"student\.10\.(\w+)": r"student/conv5/\1",
    r"student\.12\.(\w+)": r"student/conv6/\1",
    r"autoencoder\.0\.(\w+)": r"autoencoder/encoder_enconv1/\1",
    r"autoencoder\.2\.(\w+)": r"autoencoder/encoder_enconv2/\1",
    r"autoencoder\.4\.(\w+)": r"autoencoder/encoder_enconv3/\1",
    r"autoencoder\.6\.(\w+)": r"autoencoder/encoder_enconv4/\1",
    r"autoencoder\.8\.(\w+)": r"autoencoder/encoder_enconv5/\1",
    r"autoencoder\.10\.(\w+)": r"autoencoder/encoder_enconv6/\1",
    r"autoencoder\.12\.(\w+)": r"autoencoder/decoder_deconv1/\1",
    r"autoencoder\.16\.(\w+)": r"autoencoder/decoder_deconv2/\1",
    r"autoencoder\.20\.(\w+)": r"autoencoder/decoder_deconv3/\1",
    r"autoencoder\.24\.(\w+)": r"autoencoder/decoder_deconv4/\1",
    r"autoencoder\.28\.(\w+)": r"autoencoder/decoder_deconv5/\1",
    r"autoencoder\.32\.(\w+)": r"autoencoder/decoder_deconv6/\1",
    r"autoencoder\.36\.(\w+)": r"autoencoder/decoder_deconv7/\1",
    r"autoencoder\.38\.(\w+)": r"autoencoder/decoder_deconv8/\1",
    r"(teacher|mean_std|quantiles)\..*": None,
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """The networks, and anomalib's statistics where there are some."""
    state = state._replace(trained=state.trained._replace(variables=fill_by_table(state.trained.variables, tensors, TABLE)))
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    if "mean_std.mean" in tensors:
        mean, std = (jnp.asarray(tensors[f"mean_std.{each}"].reshape(-1)) for each in ("mean", "std"))
        state = state._replace(mean=mean, variance=std**2)
    if "quantiles.qa_st" in tensors:
        rows = [[tensors[f"quantiles.{q}_{kind}"] for q in ("qa", "qb")] for kind in ("st", "ae")]
        quantiles = jnp.asarray(np.array(rows, np.float32).reshape(2, 2))
        return Calibrated(state.mean, state.variance, state.trained, quantiles)
    return state
