"""Configs: their keys, their files, and the data, networks and detector that they describe."""

from iadjax.config.build import (
    Data,
    Model,
    build_data,
    build_model,
    load_frozen,
    network_keys,
    network_names,
    outline_model,
    source_options,
    spec_of,
    with_features,
    with_weights,
)
from iadjax.config.files import load_config
from iadjax.config.identity import fingerprint, fit_keys
from iadjax.config.schema import base_config, refuse_old_keys, resolve

__all__ = [
    "Data",
    "Model",
    "base_config",
    "build_data",
    "build_model",
    "fingerprint",
    "fit_keys",
    "load_config",
    "load_frozen",
    "network_keys",
    "network_names",
    "outline_model",
    "refuse_old_keys",
    "resolve",
    "source_options",
    "spec_of",
    "with_features",
    "with_weights",
]
