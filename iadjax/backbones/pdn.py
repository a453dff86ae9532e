"""EfficientAD's teachers as backbones: a patch description network distilled from a large network."""

import jax
import jax.numpy as jnp

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.nn.pdn import PDN, SPECS

__all__ = ["pdn"]


def pdn(name: str) -> Backbone:
    """The backbone `name`, a key of `nn.pdn.SPECS`; its one layer is "features", 384 channels, without padding.

    Weights of `pdn_small` come with iadjax (packaged/pdn_small.md). Others are those of `scripts/distill.py`, or a state dict
    named as in anomalib ("conv1.weight") or by the position in a sequence of layers ("0.weight").
    """
    module = PDN(name)

    def init(key, layers):
        check_layers(backbone, layers)
        return module.init(key, jnp.zeros((1, 64, 64, 3)))

    def features(variables, image, layers):
        check_layers(backbone, layers)
        x = module.apply(variables, normalize(image))
        return (x,) * len(layers)

    def weight_name(path: tuple[str, ...]) -> str:
        return f"{path[1]}.{'weight' if path[-1] == 'kernel' else 'bias'}"

    def rename(tensors):
        return published_names(name, tensors) if "0.weight" in tensors else tensors

    backbone = Backbone(
        name,
        ("features",),
        init,
        plain_features(features),
        weight_name,
        head=r"(?!)",
        packaged=name == "pdn_small",
        rename=rename,
    )
    return backbone


def published_names(name: str, tensors: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """A state dict whose convolutions are numbered as in a sequence of layers ("0.weight", "3.weight") by our names."""
    position, names = 0, {}
    for i, (_, _, _, pool) in enumerate(SPECS[name], start=1):
        names[str(position)] = f"conv{i}"
        # a ReLU follows, and in some cases a pooling
        position += 3 if pool else 2
    return {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": tensor for key, tensor in tensors.items()}
