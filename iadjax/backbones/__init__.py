"""Frozen feature extractors by name."""

from iadjax.backbones.alexnet import alexnet
from iadjax.backbones.backbone import Backbone, check_layers
from iadjax.backbones.cait import SPECS as CAITS
from iadjax.backbones.cait import cait
from iadjax.backbones.clip_text import TEXT_SPECS, clip_text
from iadjax.backbones.efficientnet import SPECS as EFFICIENTNETS
from iadjax.backbones.efficientnet import efficientnet
from iadjax.backbones.filter_bank import filter_bank
from iadjax.backbones.hrnet import SPECS as HRNETS
from iadjax.backbones.hrnet import hrnet
from iadjax.backbones.pdn import pdn
from iadjax.backbones.resnet import SPECS, resnet
from iadjax.backbones.squeezenet import squeezenet1_1
from iadjax.backbones.vgg import SPECS as VGGS
from iadjax.backbones.vgg import vgg
from iadjax.backbones.vit import SPECS as VITS
from iadjax.backbones.vit import vit
from iadjax.backbones.weights import content_hash, convert, load_weights
from iadjax.errors import UserError, did_you_mean

__all__ = ["NAMES", "Backbone", "backbone", "check_layers", "content_hash", "convert", "load_weights"]

NAMES = (
    "alexnet",
    "filter_bank",
    "pdn_medium",
    "pdn_small",
    *SPECS,
    *HRNETS,
    "squeezenet1_1",
    *VGGS,
    *EFFICIENTNETS,
    *VITS,
    *CAITS,
    *TEXT_SPECS,
)


def backbone(name: str) -> Backbone:
    """The backbone called `name`; a UserError lists the names if there is none."""
    if name in SPECS:
        return resnet(name)
    if name in HRNETS:
        return hrnet(name)
    if name in EFFICIENTNETS:
        return efficientnet(name)
    if name in VITS:
        return vit(name)
    if name in CAITS:
        return cait(name)
    if name in TEXT_SPECS:
        return clip_text(name)
    if name == "alexnet":
        return alexnet()
    if name == "squeezenet1_1":
        return squeezenet1_1()
    if name in VGGS:
        return vgg(name)
    if name in ("pdn_medium", "pdn_small"):
        return pdn(name)
    if name == "filter_bank":
        return filter_bank()
    raise UserError(f"there is no backbone {name!r}; {did_you_mean(name, NAMES)}")
