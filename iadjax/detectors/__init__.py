"""Detectors by name; a detector's module is imported when it is asked for."""

import importlib
import inspect
import sys
from collections.abc import Callable

from iadjax.errors import UserError, did_you_mean

__all__ = ["MODULES", "factory", "heading", "map_unit", "networks", "options"]

MODULES = {
    "adtr": "iadjax.detectors.transformer.adtr",
    "ae": "iadjax.detectors.autoencoder.ae",
    "anoddpm": "iadjax.detectors.diffusion.anoddpm",
    "anomalyclip": "iadjax.detectors.zero_shot.anomalyclip",
    "anomalydino": "iadjax.detectors.memory_bank.anomalydino",
    "ast": "iadjax.detectors.teacher_student.ast",
    "cdo": "iadjax.detectors.teacher_student.cdo",
    "cfa": "iadjax.detectors.memory_bank.cfa",
    "cflow": "iadjax.detectors.distribution.cflow",
    "csflow": "iadjax.detectors.distribution.csflow",
    "cutpaste": "iadjax.detectors.one_class.cutpaste",
    "daad": "iadjax.detectors.autoencoder.daad",
    "ddad": "iadjax.detectors.diffusion.ddad",
    "destseg": "iadjax.detectors.teacher_student.destseg",
    "devnet": "iadjax.detectors.supervised.devnet",
    "dfkde": "iadjax.detectors.distribution.dfkde",
    "dfm": "iadjax.detectors.distribution.dfm",
    "dfr": "iadjax.detectors.autoencoder.dfr",
    "differnet": "iadjax.detectors.distribution.differnet",
    "diffusionad": "iadjax.detectors.diffusion.diffusionad",
    "dinomaly": "iadjax.detectors.transformer.dinomaly",
    "draem": "iadjax.detectors.autoencoder.draem",
    "dsr": "iadjax.detectors.autoencoder.dsr",
    "efficientad": "iadjax.detectors.teacher_student.efficientad",
    "fastflow": "iadjax.detectors.distribution.fastflow",
    "favae": "iadjax.detectors.autoencoder.favae",
    "foundad": "iadjax.detectors.transformer.foundad",
    "fre": "iadjax.detectors.distribution.fre",
    "fyd": "iadjax.detectors.distribution.fyd",
    "ganomaly": "iadjax.detectors.gan.ganomaly",
    "gaussian_ad": "iadjax.detectors.distribution.gaussian_ad",
    "gcpf": "iadjax.detectors.memory_bank.gcpf",
    "generalad": "iadjax.detectors.one_class.generalad",
    "glass": "iadjax.detectors.one_class.glass",
    "hvqtrans": "iadjax.detectors.transformer.hvqtrans",
    "ikd": "iadjax.detectors.teacher_student.ikd",
    "inpformer": "iadjax.detectors.transformer.inpformer",
    "intra": "iadjax.detectors.transformer.intra",
    "inversionad": "iadjax.detectors.diffusion.inversionad",
    "memseg": "iadjax.detectors.one_class.memseg",
    "mh_patchcore": "iadjax.detectors.memory_bank.mh_patchcore",
    "mkd": "iadjax.detectors.teacher_student.mkd",
    "msc": "iadjax.detectors.one_class.msc",
    "msflow": "iadjax.detectors.distribution.msflow",
    "mstunet": "iadjax.detectors.transformer.mstunet",
    "musc": "iadjax.detectors.zero_shot.musc",
    "nsa": "iadjax.detectors.autoencoder.nsa",
    "ocrgan": "iadjax.detectors.gan.ocrgan",
    "padim": "iadjax.detectors.distribution.padim",
    "panda": "iadjax.detectors.one_class.panda",
    "patchcore": "iadjax.detectors.memory_bank.patchcore",
    "patchflow": "iadjax.detectors.distribution.patchflow",
    "patchsvdd": "iadjax.detectors.one_class.patchsvdd",
    "pni": "iadjax.detectors.memory_bank.pni",
    "pyramidflow": "iadjax.detectors.distribution.pyramidflow",
    "rad": "iadjax.detectors.memory_bank.rad",
    "rd4ad": "iadjax.detectors.teacher_student.rd4ad",
    "rdpp": "iadjax.detectors.teacher_student.rdpp",
    "reconpatch": "iadjax.detectors.memory_bank.reconpatch",
    "rgi": "iadjax.detectors.gan.rgi",
    "riad": "iadjax.detectors.autoencoder.riad",
    "scadn": "iadjax.detectors.gan.scadn",
    "score_based": "iadjax.detectors.diffusion.score_based",
    "simplenet": "iadjax.detectors.one_class.simplenet",
    "softpatch": "iadjax.detectors.memory_bank.softpatch",
    "somad": "iadjax.detectors.memory_bank.somad",
    "spade": "iadjax.detectors.memory_bank.spade",
    "stpm": "iadjax.detectors.teacher_student.stpm",
    "subspacead": "iadjax.detectors.distribution.subspacead",
    "superad": "iadjax.detectors.memory_bank.superad",
    "superadd": "iadjax.detectors.memory_bank.superadd",
    "supersimplenet": "iadjax.detectors.one_class.supersimplenet",
    "transfusion": "iadjax.detectors.diffusion.transfusion",
    "uflow": "iadjax.detectors.distribution.uflow",
    "uniad": "iadjax.detectors.transformer.uniad",
    "uninet": "iadjax.detectors.teacher_student.uninet",
    "us": "iadjax.detectors.teacher_student.us",
    "vae": "iadjax.detectors.autoencoder.vae",
    "vtadl": "iadjax.detectors.transformer.vtadl",
    "winclip": "iadjax.detectors.zero_shot.winclip",
}


def factory(name: str) -> Callable:
    """The function that builds the detector `name`: `factory(name)(*networks, **options)`, see `networks`."""
    if name not in MODULES:
        raise UserError(f"there is no detector {name!r}; {did_you_mean(name, MODULES)}")
    return getattr(importlib.import_module(MODULES[name]), name)


def heading(name: str) -> str:
    """The first paragraph of a detector's file: its name, then title, authors, venue and arXiv number."""
    factory(name)
    return " ".join((sys.modules[MODULES[name]].__doc__ or "").split("\n\n")[0].split())


def map_unit(name: str) -> str:
    """What the docstring of a detector says of its map."""
    # without its indentation, which Python 3.13 takes away by itself
    sentence = " ".join(inspect.getdoc(factory(name)).split("\nMap: ")[1].split("\n\n")[0].split())
    return sentence[0].upper() + sentence[1:].rstrip(".")


def options(name: str) -> dict[str, object]:
    """The keyword options of a detector with their defaults: the config keys under `detector`."""
    parameters = inspect.signature(factory(name)).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}


def networks(name: str) -> tuple[str, ...]:
    """The frozen networks of a detector, by the names of its factory's first arguments: "backbone" and others."""
    parameters = inspect.signature(factory(name)).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is parameter.POSITIONAL_OR_KEYWORD)
