"""Overrides `--config.key=value` that apply to several configs: text that takes the type of the key."""

import ast
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from iadjax.config import refuse_old_keys
from iadjax.errors import UserError, did_you_mean

__all__ = ["override"]


def override(config: ConfigDict, values: Mapping[str, str]) -> ConfigDict:
    """The config with other values.

    Args:
      config: as `get_config` returns it; it is changed.
      values: text by dotted key, like {"detector.coreset_ratio": "0.01"}.

    Raises:
      UserError: a key that the config has not got, or text that does not fit its type.
    """
    for key, text in values.items():
        refuse_old_keys({key: None}, "the flag")
        *groups, last = key.split(".")
        node = config
        for depth, part in enumerate([*groups, last]):
            if not isinstance(node, ConfigDict) or part not in node:
                where = ".".join(key.split(".")[:depth]) or "the config"
                known = did_you_mean(part, node) if isinstance(node, ConfigDict) else f"{where} is a value"
                raise UserError(f"{where} has no key {part!r} (--config.{key}); {known}")
            parent, node = node, node[part]
        if isinstance(node, ConfigDict):
            raise UserError(f"--config.{key} is a group of keys; give one of them: {', '.join(sorted(node))}")
        parent[last] = _typed(key, text, node)
    return config


def _typed(key: str, text: str, now: Any) -> Any:
    """The text as a value of the type of the present one."""
    if isinstance(now, bool):
        if text.lower() not in ("true", "false", "1", "0"):
            raise UserError(f"--config.{key} must be true or false, got {text!r}")
        return text.lower() in ("true", "1")
    if isinstance(now, str):
        return text
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = None
    if isinstance(now, float) and type(value) is int:
        value = float(value)
    if isinstance(now, tuple) and isinstance(value, list | str | int | float):
        value = tuple(value) if isinstance(value, list) else (value,)
    # sizes of images: one integer or a pair
    sizes = isinstance(now, int | tuple | list) and key.split(".")[0] == "data" and isinstance(value, int | tuple | list)
    if value is None or not (type(value) is type(now) or sizes):
        raise UserError(f"--config.{key} must be {type(now).__name__}, like {now!r}, got {text!r}")
    return value
