"""Every config key with its default, and the check of a config against them; `keys.KEYS` says what each key is."""

import ast
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from iadjax import detectors, metrics
from iadjax.data.images import check_channels, check_value_range
from iadjax.data.opening import MAX_PIXELS
from iadjax.data.transform import FILTERS, RESIZE_SIDES
from iadjax.errors import UserError, did_you_mean
from iadjax.metrics import thresholds

__all__ = ["OLD_KEYS", "SIZES", "base_config", "refuse_old_keys", "resolve"]


SIZES = ("resize", "crop", "tile")

GEOMETRY = (*SIZES, "tile_overlap", "resize_side", "interpolation", "crop_multiple")
"""Keys under `data` of the `Transform`."""

_AT_LEAST_0 = (
    "evaluate.eval_size",
    "evaluate.map_sigma",
    "evaluate.byte_budget",
    "data.feature_cache_bytes",
    "data.max_pixels",
    "threshold.holdout",
    "protocol.noise_ratio",
)

READING = {"value_range": "auto", "channels": "auto", "max_pixels": MAX_PIXELS}
"""Keys under `data` of how an image file is read, with their defaults: of the `Transform` and of `data.load`."""

FREE_TYPES = tuple(f"data.{name}" for name in (*SIZES, "mask_threshold", "value_range", "channels"))
"""Keys that take values of several types."""

OLD_KEYS = {
    "data.overlap": "data.tile_overlap",
    "protocol.k": "protocol.num_shots",
    "protocol.ratio": "protocol.noise_ratio",
    "protocol.overlap": "protocol.keep_in_test",
    "threshold.q": "threshold.quantile",
    "threshold.k": "threshold.num_sigmas",
    "threshold.tail": "threshold.tail_fraction",
}
"""Keys of earlier versions, with their present names; they are refused."""


def base_config(detector: str = "patchcore", dataset: str = "synthetic") -> ConfigDict:
    """Every config key with its default; `detector` gets the keywords of its factory. `KEYS` says what each is."""
    config = ConfigDict()
    config.seed = 0
    config.quick = False
    config.precision = "float32"
    config.parallel = "jit"
    config.data = ConfigDict(
        {"name": dataset, "root": "", "category": "", "batch_size": 16, "workers": 2, "tile_overlap": 0.25}
        | {"resize_side": "auto", "interpolation": "bilinear", "crop_multiple": 0}
        | {"feature_cache_bytes": 4 * 2**30}
        | {key: FieldReference(size, field_type=object) for key, size in zip(SIZES, (256, 0, 0), strict=True)}
        | {key: FieldReference(READING[key], field_type=object) for key in ("value_range", "channels")}
        | {"max_pixels": READING["max_pixels"]}
    )
    if dataset == "folder":
        config.data.update({"normal": "", "abnormal": "", "masks": "", "test_fraction": 0.2})
        config.data.mask_threshold = FieldReference("auto", field_type=object)
    networks = detectors.networks(detector)
    if "backbone" in networks:
        config.backbone = ConfigDict({"name": "filter_bank", "weights": ""})
    others = [name for name in networks if name != "backbone"]
    if others:
        config.networks = ConfigDict({name: {"name": "", "weights": ""} for name in others})
    config.detector = ConfigDict({"name": detector, **detectors.options(detector)})
    config.protocol = ConfigDict(
        {"name": "unsupervised", "num_shots": 4, "shots_by_name": False, "rotations": 1, "num_anomalies": 10}
        | {"defect": "", "noise_ratio": 0.1, "keep_in_test": False, "test_batch": False, "source": "", "source_root": ""}
    )
    config.evaluate = ConfigDict(
        {"pixel": True, "eval_size": 0, "map_sigma": 0.0, "save_maps": False, "byte_budget": 4 * 2**30}
    )
    config.threshold = ConfigDict({"name": "quantile", "holdout": 0.1, **thresholds.DEFAULTS})
    config.checkpoint_every = 200
    config.plateau = 0.0
    return config


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as a plain, checked dict of JSON values; what `config.json` holds.

    Raises:
      UserError: an old or unknown key, or a value of the wrong type; the new name or the nearest valid names are given.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    refuse_old_keys(given)
    name = _section(given, "detector").get("name", "patchcore")
    reference = base_config(name, _section(given, "data").get("name", "synthetic")).to_dict()
    plain, defaults = (json.loads(json.dumps(each, default=str)) for each in (given, reference))
    _check_names("", plain, reference)
    for section, known in defaults.items():
        if isinstance(known, dict):
            _check_names(section, _section(plain, section), known)
            plain[section] = {**known, **plain.get(section, {})}
            for name, keys in known.items():
                # the keys of `networks` are groups
                if isinstance(keys, dict):
                    group = f"{section}.{name}"
                    _check_names(group, _section(plain[section], name), keys)
                    plain[section][name] = {**keys, **plain[section][name]}
        else:
            plain.setdefault(section, known)
    for key, default in _leaves("", reference):
        value = plain
        for part in key.split("."):
            value = value[part]
        _check_type(key, value, default)
        _check_finite(key, value)
    for key in SIZES:
        plain["data"][key] = _size(f"data.{key}", plain["data"][key])
    plain["data"]["value_range"] = check_value_range(plain["data"]["value_range"])
    channels = check_channels(plain["data"]["channels"])
    plain["data"]["channels"] = channels if channels == "auto" else list(channels)
    if plain["data"]["batch_size"] < 1 or plain["data"]["workers"] < 0 or plain["checkpoint_every"] < 1:
        raise UserError("data.batch_size and checkpoint_every must be at least 1, and data.workers at least 0")
    if not 0 <= plain["data"]["tile_overlap"] < 1:
        raise UserError(f"data.tile_overlap is a fraction of a tile, in [0, 1); got {plain['data']['tile_overlap']}")
    if not 0 <= plain["plateau"] < 1:
        raise UserError(f"config.plateau is a fraction of the steps of a phase, in [0, 1); got {plain['plateau']}")
    for key, known in (("resize_side", RESIZE_SIDES), ("interpolation", FILTERS)):
        if plain["data"][key] not in known:
            raise UserError(f"there is no data.{key} {plain['data'][key]!r}; {did_you_mean(plain['data'][key], known)}")
    for key in _AT_LEAST_0:
        section, name = key.split(".")
        if not plain[section][name] >= 0:
            raise UserError(f"config.{key} must be at least 0, got {plain[section][name]}")
    metrics.check_threshold(**plain["threshold"])
    return plain


def _leaves(prefix: str, tree: dict) -> Iterator[tuple[str, Any]]:
    """Every key of nested groups with its value, as "section.key"."""
    for key, value in tree.items():
        name = f"{prefix}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from _leaves(name, value)
        else:
            yield name, value


def refuse_old_keys(config: Mapping[str, Any], where: str = "the config") -> None:
    """Refuses a config with a key of an earlier version.

    Args:
      config: sections of keys, or keys with dots like "protocol.k".
      where: what holds it, for the message.

    Raises:
      UserError: the first old key, with its new name.
    """
    for section, value in config.items():
        for key in [f"{section}.{each}" for each in value] if isinstance(value, Mapping) else [section]:
            if key in OLD_KEYS:
                raise UserError(f"{where} has the old key {key!r}, which is {OLD_KEYS[key]!r} now; use the new name")


def _section(config: dict, name: str) -> dict:
    section = config.get(name, {})
    if not isinstance(section, dict):
        raise UserError(f"config.{name} must be a group of keys, got {section!r}")
    return section


def _check_names(section: str, given: dict, known: dict) -> None:
    for key in given:
        if key not in known:
            raise UserError(f"the config has no key {f'{section}.{key}'.lstrip('.')!r}; {did_you_mean(key, known)}")


def _check_type(key: str, value: Any, default: Any) -> None:
    if key in FREE_TYPES:
        return
    kind = type(default)
    fits = {
        bool: isinstance(value, bool),
        int: isinstance(value, int) and not isinstance(value, bool),
        float: isinstance(value, int | float) and not isinstance(value, bool),
        tuple: isinstance(value, list | tuple),
    }
    if not fits.get(kind, isinstance(value, kind)):
        raise UserError(f"config.{key} must be {kind.__name__}, like {default!r}, got {value!r}")


def _check_finite(key: str, value: Any) -> None:
    if any(isinstance(each, float) and not math.isfinite(each) for each in (value if isinstance(value, list) else [value])):
        raise UserError(f"config.{key} must be a finite number, got {value}")


def _size(key: str, value: Any) -> int | list[int]:
    """One integer, or [height, width]; text from the command line is read as Python."""
    try:
        value = ast.literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        value = None
    integers = value if isinstance(value, list | tuple) else [value]
    if not all(type(each) is int and each >= 0 for each in integers) or len(integers) not in (1, 2):
        raise UserError(f"config.{key} must be one integer or (height, width), 0 for off, got {value!r}")
    return list(integers) if isinstance(value, list | tuple) else value
