"""SCADN: names of the authors' tensors, the generator's and the discriminator's in one dict."""

import jax.numpy as jnp
import numpy as np

from iadjax.backbones.weights import fill_by_table
from iadjax.detector import State

TABLE = {
    r"(?:gen\.|generator\.)?(encoder|decoder)\.(\d+)\.(\w+)": r"generator/\1_\2/\3",
    r"(?:gen\.|generator\.)?middle\.(\d+)\.conv_block\.(\d)\.(\w+)": r"generator/middle_\1_conv_block_\2/\3",
    r"(?:dis\.|discriminator\.)?conv(\d)\.0\.weight_orig": r"discriminator/conv\1_0/weight",
    # the first layer has two names in their code; vectors of spectral norms are below
    r"(?:dis\.|discriminator\.)?features\.0\.\w+": None,
    r"(?:dis\.|discriminator\.)?conv\d\.0\.weight_[uv]": None,
}


def from_torch(tensors: dict[str, np.ndarray], state: State) -> State:
    """Both networks; the norm of a kernel W, O x I h w, is u W v by the vectors that PyTorch keeps."""
    networks = {name: getattr(state, name) for name in ("generator", "discriminator")}
    filled = fill_by_table({"params": {name: each.variables["params"] for name, each in networks.items()}}, tensors, TABLE)
    norms = {}
    for name, kernel in tensors.items():
        if name.endswith("weight_orig"):
            layer = name.split(".")[-3]
            u, v = (np.asarray(tensors[name.replace("weight_orig", f"weight_{each}")], np.float64) for each in "uv")
            sigma = u @ np.asarray(kernel, np.float64).reshape(len(u), -1) @ v
            key = f"{layer}_0/kernel"
            norms[layer.replace("conv", "norm")] = {f"{key}/sigma": jnp.float32(sigma), f"{key}/u": jnp.float32(u)[None]}
    variables = {name: {**each.variables, "params": filled["params"][name]} for name, each in networks.items()}
    variables["discriminator"]["batch_stats"] = norms
    return state._replace(**{name: each._replace(variables=variables[name]) for name, each in networks.items()})
