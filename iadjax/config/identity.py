"""What a config is as far as fitting goes: the keys that a checkpoint belongs to, and their hash."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["fingerprint", "fit_keys"]


# keys that do not change what fitting computes; everything else is part of a checkpoint's identity
_FREE = ("evaluate", "checkpoint_every", "parallel")

# where files lie does not matter: a restore compares the hash of the weights, and `run.json` records that of the images
_FREE_KEYS = ("data.workers", "data.root", "backbone.weights")


def fit_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a resolved config that fitting depends on, flat: {"detector.sigma": 4.0, ...}."""
    flat = {}
    for section, value in config.items():
        if section in _FREE:
            continue
        for key, each in value.items() if isinstance(value, dict) else [("", value)]:
            name = f"{section}.{key}".rstrip(".")
            if name not in _FREE_KEYS and (section != "threshold" or key == "holdout"):
                flat[name] = each
    return flat


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
