"""Weights of backbones: safetensors from a file or from the Hugging Face Hub, by PyTorch's names.

Weights are data, never code: no pickle is read.
"""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from safetensors import SafetensorError
from safetensors.numpy import load_file

from iadjax.backbones.backbone import Backbone
from iadjax.backbones.weights.names import fill
from iadjax.errors import UserError

__all__ = ["content_hash", "convert", "fetch", "load_weights"]

# a card beside each file says what it was made of
_PACKAGED = Path(__file__).parents[1] / "packaged"


def load_weights(backbone: Backbone, weights: str, layers: Sequence[str], key: jax.Array):
    """The backbone's variables up to the last of `layers`.

    Args:
      backbone: the network.
      weights: a safetensors file, a Hub tag ("timm/resnet18.tv_in1k"), "random" (drawn from `key`), or "" for the
        backbone's own default: the file that comes with iadjax, or a Hub tag.
      layers: the layers that will be asked for.
      key: PRNG key, used by "random" only.

    Raises:
      UserError: no such file, no network and nothing cached, or tensors that do not fit (named).
    """
    if backbone.weight_name is None:
        if weights:
            raise UserError(f"{backbone.name} has no weights to load; leave backbone.weights empty instead of {weights!r}")
        return backbone.init(key, layers)
    if weights == "random":
        return backbone.init(key, layers)
    if not weights and backbone.packaged:
        path = _PACKAGED / f"{backbone.name}.safetensors"
    elif not weights and backbone.hub is None:
        raise UserError(f"{backbone.name} needs weights: give a safetensors file with --config.backbone.weights=FILE")
    else:
        path = fetch(weights or backbone.hub)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read as safetensors ({error}); give a .safetensors file") from error
    return convert(backbone, tensors, layers, source=str(path))


def fetch(weights: str) -> Path:
    """A local file as it is, or the file behind a Hub tag, cached by the Hub's own client.

    A tag is "OWNER/REPOSITORY", whose file is model.safetensors, or "OWNER/REPOSITORY:FILE".
    """
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    tag = re.fullmatch(r"([\w.-]+/[\w.-]+)(?::([\w.-]+\.safetensors))?", weights)
    if tag is None or (tag[2] is None and path.suffix == ".safetensors") or path.is_dir():
        raise UserError(
            f"there is no weights file {weights!r}; give a safetensors file or a Hub tag like 'timm/resnet18.tv_in1k'"
        )
    from huggingface_hub import hf_hub_download

    repository, name = tag[1], tag[2] or "model.safetensors"
    try:
        return Path(hf_hub_download(repository, name))
    except Exception as error:  # the client's errors have many types: offline, unknown tag, gated
        raise UserError(
            f"the weights {weights!r} are not cached and could not be fetched ({type(error).__name__}); download "
            f"https://huggingface.co/{repository}/resolve/main/{name} and give it with --config.backbone.weights=FILE"
        ) from error


def convert(backbone: Backbone, tensors: dict[str, np.ndarray], layers: Sequence[str], source: str = "the state dict"):
    """Variables from a PyTorch state dict, in our layout (`weights.names.torch_layout`).

    Tensors of layers above the last one asked for may be absent; every other missing, extra or misshapen tensor is an
    error that names it.
    """
    known = (re.escape(backbone.weight_name(path)) for path in flatten_dict(_shapes(backbone, backbone.layers)))
    return fill(
        _shapes(backbone, layers),
        backbone.rename(tensors),
        backbone.weight_name,
        ignored="|".join([backbone.head, *known]),
        failure=f"{source} does not hold the weights of {backbone.name}",
    )


def _shapes(backbone: Backbone, layers: Sequence[str]):
    return jax.eval_shape(lambda key: backbone.init(key, layers), jax.random.key(0))


def content_hash(variables) -> str:
    """SHA-256 of a tree of arrays: names, dtypes, shapes and bytes."""
    digest = hashlib.sha256()
    for path, leaf in sorted(
        jax.tree_util.tree_flatten_with_path(variables)[0], key=lambda pair: jax.tree_util.keystr(pair[0])
    ):
        array = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
