"""EfficientAD: names of tensors in other libraries."""

import jax.numpy as jnp
import numpy as np

from iadjax.backbones import weights
from iadjax.backbones.pdn import published_names
from iadjax.detector import State

__all__ = ["from_torch"]


# places of the convolutions in Nelson's sequence of layers
_PLACES = {2 * i: f"encoder.enconv{i + 1}" for i in range(6)}

_PLACES |= {12 + 3 * i: f"decoder.deconv{i + 1}" for i in range(7)} | {32: "decoder.deconv8"}


def from_torch(tensors, state: State) -> State:
    """The state with the tensors of anomalib, or of Nelson's code ("student." and "autoencoder." before its numbers).

    anomalib's hold the statistics of the teacher and the quantiles too, which are taken over; without them the first two
    phases and the last one have to be run. The teacher's tensors are the backbone's.
    """
    tensors = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    renamed, student = {}, {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        if part == "student" and rest[0].isdigit():
            student[rest] = tensor
        elif part == "autoencoder":
            number, kind = rest.split(".")
            renamed[f"autoencoder.{_PLACES.get(int(number), number)}.{kind}"] = tensor
        elif part == "ae":
            renamed[f"autoencoder.{rest}"] = tensor
        else:
            renamed[name] = tensor
    if student:
        spec = "pdn_small" if "8.weight" in student and "10.weight" not in student else "pdn_medium"
        renamed |= {f"student.{name}": tensor for name, tensor in published_names(spec, student).items()}

    def name(path):
        return weights.torch_name(path).replace("encoder_", "encoder.").replace("decoder_", "decoder.")

    variables = weights.fill(state.trained.variables, renamed, name, ignored=r"(teacher|mean_std|quantiles)\..*")
    state = state._replace(trained=state.trained._replace(variables=variables))
    if "mean_std.mean" in tensors:
        mean, std = (jnp.asarray(tensors[f"mean_std.{each}"].reshape(-1)) for each in ("mean", "std"))
        state = state._replace(mean=mean, variance=std**2)
    if "quantiles.qa_st" in tensors:
        rows = [[tensors[f"quantiles.{q}_{kind}"] for q in ("qa", "qb")] for kind in ("st", "ae")]
        state = state._replace(maps=jnp.asarray(np.array(rows, np.float32).reshape(2, 2)))
    return state
