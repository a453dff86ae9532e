"""The argument of a config file, `FILE.py:DATASET[,category=NAME][,quick][,KEY=VALUE...]`, and what it does to a config."""

import ast
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from iadjax import data
from iadjax.config.schema import FREE_TYPES, refuse_old_keys
from iadjax.errors import UserError, did_you_mean

__all__ = ["FORM", "Arguments", "ad2", "finish", "override", "parse_arg", "quick"]

FORM = "DATASET[,category=NAME][,quick][,KEY=VALUE...]"

QUICK_SIZE = 128


class Arguments(NamedTuple):
    """The argument of a config file.

    Attributes:
      dataset: `data.name`.
      category: `data.category`; "" leaves the config's own.
      quick: whether the config is shrunken to about a minute on two cores.
      options: what the config file takes beside these.
      keys: config keys with dots and their values, {"data.resize": "128"}.
    """

    dataset: str
    category: str
    quick: bool
    options: Mapping[str, Any]
    keys: Mapping[str, str]


def parse_arg(arg: str, dataset: str = "synthetic", **defaults: Any) -> Arguments:
    """Reads the argument of a config file.

    Args:
      arg: like "mvtec_ad,category=bottle,quick,data.resize=(128, 96)"; commas inside brackets do not separate. Words like
        "quick" without a value are true.
      dataset: the data set if `arg` begins with another word or is empty.
      defaults: further names that the config file takes, with values of their types: bool, int, float or str.

    Raises:
      UserError: the old form `dataset:category`, an unknown data set or name, a name given twice, or a value of another type.
    """
    known = {"category": "", "quick": False} | defaults
    # a comma inside brackets or quotes belongs to the value
    words = [word.strip() for word in re.findall(r"(?:[^,(\[\"']|\([^)]*\)|\[[^\]]*\]|\"[^\"]*\"|'[^']*')+", arg)]
    words = [word for word in words if word]
    if words and "=" not in words[0] and words[0] not in known:
        dataset = _dataset(words.pop(0), arg)
    found: dict[str, Any] = {}
    keys: dict[str, str] = {}
    for word in words:
        name, equals, value = (part.strip() for part in word.partition("="))
        if name in found or name in keys:
            raise UserError(f"the config argument {arg!r} gives {name!r} twice; give it once")
        if name in known:
            found[name] = _typed(name, value if equals else None, known[name], arg)
        elif equals and "." in name:
            keys[name] = value
        else:
            raise UserError(
                f"the config argument {arg!r} has the unknown word {word!r}; {did_you_mean(name, known)}, and config keys "
                f"with a dot like data.resize=128: the form is {FORM}"
            )
    options = known | found
    return Arguments(dataset, options.pop("category"), options.pop("quick"), options, keys)


def _dataset(word: str, arg: str) -> str:
    old, colon, category = word.partition(":")
    if old == "smoke" or colon:
        new = ",".join(["synthetic,quick" if old == "smoke" else old, *([f"category={category}"] if category else [])])
        raise UserError(f"the config argument {arg!r} has a form of earlier versions; write {new!r}")
    if word not in data.NAMES:
        raise UserError(f"the config argument {arg!r} names no data set; {did_you_mean(word, data.NAMES)}")
    return word


def _typed(name: str, text: str | None, default: Any, arg: str) -> Any:
    """The text as a value of the default's type; None is a word without a value."""
    kind = type(default)
    value = True if text is None and kind is bool else _value(text or "", default)
    if value is None or (kind is str and not value):
        like = "true or false" if kind is bool else f"{kind.__name__} like {name}={default or 'NAME'}"
        raise UserError(f"the config argument {arg!r} needs for {name!r} a value of the type {like}")
    return value


def _value(text: str, default: Any) -> Any:
    """The text as a value of the default's type; None if it is not one."""
    if isinstance(default, str):
        return text
    if isinstance(default, bool):
        return {"true": True, "false": False}.get(text.lower())
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if isinstance(default, tuple | list):
        return tuple(value) if isinstance(value, tuple | list) else None
    return value if type(value) is type(default) else None


def override(config: ConfigDict, keys: Mapping[str, str]) -> ConfigDict:
    """Sets config keys with dots from text: {"data.resize": "128"}; changes the config and returns it.

    Raises:
      UserError: an old or unknown key, or text that is no value of the key's type.
    """
    refuse_old_keys(keys, "the config argument")
    for key, text in keys.items():
        *groups, last = key.split(".")
        node = config
        for group in groups:
            node = node[group] if isinstance(node, ConfigDict) and group in node else None
        if not isinstance(node, ConfigDict) or last not in node or isinstance(node[last], ConfigDict):
            names = [*node] if isinstance(node, ConfigDict) else [*config]
            raise UserError(f"the config has no key {key!r}; {did_you_mean(last if node is not None else groups[0], names)}")
        if key in FREE_TYPES:
            # several types are allowed; `resolve` checks them
            value = _literal(text)
        else:
            value = _value(text, node[last])
        if value is None:
            raise UserError(f"config.{key} must be {type(node[last]).__name__}, like {node[last]!r}, got {text!r}")
        node[last] = value
    return config


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def quick(config: ConfigDict, detector: Mapping[str, Any] | None = None, **changes: Any) -> None:
    """Shrinks a config to about a minute on two cores: images of 128 x 128 and a backbone without weights.

    What a run of it finds is no measure of the method. It is marked by the key `quick`, so that no published figure stands
    beside it.

    Args:
      config: is changed.
      detector: its options, such as fewer steps.
      changes: further keys under `data`.
    """
    plain = {"resize": QUICK_SIZE, "crop": 0, "tile": 0, "resize_side": "auto", "interpolation": "bilinear", "crop_multiple": 0}
    config.data.update(plain | changes)
    if "backbone" in config:
        config.backbone.update({"name": "filter_bank", "weights": ""})
    config.detector.update(detector or {})
    config.quick = True


def finish(config: ConfigDict, arguments: Arguments) -> ConfigDict:
    """The last step of `get_config`: the category and the config keys of the argument; changes the config and returns it."""
    if arguments.category:
        config.data.category = arguments.category
    elif arguments.dataset == "synthetic":
        config.data.category = config.data.category or "all"
    return override(config, arguments.keys)


def ad2(config: ConfigDict, tile: int) -> None:
    """The protocol of MVTec AD 2 in a config, which is changed: docs/data.md has it.

    Images keep their size and go through the network in tiles. The threshold comes from the normal images of the validation
    part alone. Maps are saved for the private images, which the server judges.

    Args:
      config: of the data set `mvtec_ad_2` or `mvtec_ad_2_private`.
      tile: side of a tile in pixels.
    """
    config.data.update({"resize": 0, "crop": 0, "tile": tile, "tile_overlap": 0.25, "resize_side": "auto"})
    config.evaluate.update({"eval_size": 0, "save_maps": config.data.name == "mvtec_ad_2_private"})
    # of some forty normal images a high quantile is the maximum
    config.threshold.update({"name": "k_sigma", "num_sigmas": 3.0, "holdout": 0.1})
