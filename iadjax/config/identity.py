"""The keys of a config that fitting depends on, which a checkpoint belongs to, and their hash."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["fingerprint", "fit_keys"]


# keys that do not change what fitting computes; everything else is part of a checkpoint's identity
_FREE = ("evaluate", "checkpoint_every", "parallel", "quick")

# the location of files does not matter: `fit` compares the hash of the images, a restore that of the weights
_PLACES = ("data.root", "data.normal", "data.abnormal", "data.masks", "protocol.source_root", "backbone.weights")
_FREE_KEYS = ("data.workers", "data.feature_cache_bytes", "data.max_pixels", *_PLACES)


def fit_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that fitting depends on, flat: {"detector.sigma": 4.0, ...}."""
    flat = {}
    for section, value in config.items():
        if section in _FREE:
            continue
        for key, each in _flat(section, value):
            if key not in _FREE_KEYS and not re.fullmatch(r"networks\..*\.weights", key) and _of_fit(key):
                flat[key] = each
    return flat


def _flat(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, each in value.items():
        yield from _flat(f"{name}.{key}", each)


def _of_fit(key: str) -> bool:
    return not key.startswith("threshold.") or key == "threshold.holdout"


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
