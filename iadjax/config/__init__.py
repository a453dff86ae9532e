"""Configs: their keys, their files, and the data, networks and detector that they describe."""

from iadjax.config.arguments import Arguments, ad2, finish, override, parse_arg, quick
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
from iadjax.config.files import find_config, load_config, shipped
from iadjax.config.identity import fingerprint, fit_keys
from iadjax.config.keys import KEYS, describe, listing
from iadjax.config.published import IM_IAD, Row, differences, published
from iadjax.config.schema import base_config, refuse_old_keys, resolve

__all__ = [
    "IM_IAD",
    "KEYS",
    "Arguments",
    "Data",
    "Model",
    "Row",
    "ad2",
    "base_config",
    "build_data",
    "build_model",
    "describe",
    "differences",
    "find_config",
    "fingerprint",
    "finish",
    "fit_keys",
    "listing",
    "load_config",
    "load_frozen",
    "network_keys",
    "network_names",
    "outline_model",
    "override",
    "parse_arg",
    "published",
    "quick",
    "refuse_old_keys",
    "resolve",
    "shipped",
    "source_options",
    "spec_of",
    "with_features",
    "with_weights",
]
