"""Configs: what they hold, how a file is loaded, and how one becomes data, a backbone and a detector."""

import ast
import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict, FieldReference

from iadjax import backbones, data, detectors, metrics
from iadjax.data import Dataset, Split, Transform
from iadjax.detector import DataSpec, Detector, Frozen
from iadjax.errors import UserError, did_you_mean
from iadjax.frozen import precompute
from iadjax.precision import mixed_precision

__all__ = [
    "Data",
    "Model",
    "base_config",
    "build_data",
    "build_model",
    "fingerprint",
    "fit_keys",
    "load_config",
    "resolve",
    "source_options",
    "spec_of",
]

_SIZES = ("resize", "crop", "tile")
# keys that do not change what fitting computes; everything else is part of a checkpoint's identity
_FREE = ("evaluate", "checkpoint_every", "parallel")
# where files lie does not matter: a restore compares the hash of the weights, and `run.json` records that of the images
_FREE_KEYS = ("data.workers", "data.root", "backbone.weights")


def base_config(detector: str = "patchcore", dataset: str = "synthetic") -> ConfigDict:
    """Every config key with its default; `detector` gets the keywords of its factory."""
    config = ConfigDict()
    config.seed = 0
    # of the networks' products: "float32" or "bfloat16"
    config.precision = "float32"
    # over several devices: "jit" splits batches and banks, "pmap" keeps replicas
    config.parallel = "jit"
    config.data = ConfigDict(
        {"name": dataset, "root": "", "category": "", "batch_size": 16, "workers": 2, "overlap": 0.25}
        # sizes: one integer or (height, width)
        | {key: FieldReference(size, field_type=object) for key, size in zip(_SIZES, (256, 0, 0), strict=True)}
    )
    if dataset == "folder":
        config.data.update({"normal": "", "abnormal": "", "masks": "", "test_fraction": 0.2})
    config.backbone = ConfigDict({"name": "filter_bank", "weights": ""})
    config.detector = ConfigDict({"name": detector, **detectors.options(detector)})
    # what each key belongs to stands at `data.split`
    config.protocol = ConfigDict(
        {"name": "unsupervised", "k": 4, "rotations": 1, "num_anomalies": 10, "defect": "", "ratio": 0.1, "overlap": False}
        | {"test_batch": False, "source": ""}
    )
    config.evaluate = ConfigDict({"pixel": True, "eval_size": 0, "save_maps": False, "byte_budget": 4 * 2**30})
    config.threshold = ConfigDict({"name": "quantile", "holdout": 0.1, "q": 0.99, "k": 3.0, "fpr": 0.01, "tail": 0.1})
    config.checkpoint_every = 200
    return config


def load_config(path: str) -> ConfigDict:
    """The config of a Python file, `FILE` or `FILE:ARGUMENT`: what its `get_config(argument)` returns."""
    name, _, argument = str(path).partition(".py")
    file = Path(f"{name}.py").expanduser()
    if not file.is_file() or (argument and not argument.startswith(":")):
        raise UserError(f"there is no config file {str(path)!r}; give --config=FILE.py or --config=FILE.py:ARGUMENT")
    spec = importlib.util.spec_from_file_location("iadjax_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"the config file {file} has no function get_config")
    return module.get_config(*([argument[1:]] if argument else []))


def resolve(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as a plain, checked dict of JSON values; what `config.json` holds.

    Raises:
      UserError: an unknown or missing key, or a value of the wrong type; the nearest valid names are listed.
    """
    given = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    name = _section(given, "detector").get("name", "patchcore")
    reference = base_config(name, _section(given, "data").get("name", "synthetic")).to_dict()
    plain, defaults = (json.loads(json.dumps(each, default=str)) for each in (given, reference))
    _check_names("", plain, reference)
    for section, known in defaults.items():
        if isinstance(known, dict):
            _check_names(section, _section(plain, section), known)
            plain[section] = {**known, **plain.get(section, {})}
        else:
            plain.setdefault(section, known)
    for section, known in reference.items():
        for key, default in known.items() if isinstance(known, dict) else [(None, known)]:
            value = plain[section].get(key, default) if key else plain[section]
            _check_type(f"{section}.{key}" if key else section, value, default)
    for key in _SIZES:
        plain["data"][key] = _size(f"data.{key}", plain["data"][key])
    if plain["data"]["batch_size"] < 1 or plain["data"]["workers"] < 0 or plain["checkpoint_every"] < 1:
        raise UserError("data.batch_size and checkpoint_every must be at least 1, and data.workers at least 0")
    if not 0 <= plain["data"]["overlap"] < 1:
        raise UserError(f"data.overlap is a share of a tile, in [0, 1); got {plain['data']['overlap']}")
    metrics.threshold_options(plain["threshold"]["name"])
    return plain


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
    if key in [f"data.{name}" for name in _SIZES] or isinstance(default, dict):
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


class Model(NamedTuple):
    """A detector and what it runs on.

    Attributes:
      detector: the pure functions.
      frozen: variables of the backbone.
      ready: the same for updates and predictions, see `frozen.precompute`.
      transform: resize and crop.
      weights: {"name", "weights", "hash"} of the backbone, as recorded beside every number.
    """

    detector: Detector
    frozen: Frozen
    ready: Frozen
    transform: Transform
    weights: dict[str, str]


def build_model(config: Mapping[str, Any]) -> Model:
    """The detector of a resolved config, with its backbone's variables loaded."""
    options = dict(config["detector"])
    name = options.pop("name")
    build: Callable = detectors.factory(name)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    backbone = backbones.backbone(config["backbone"]["name"])
    detector = mixed_precision(build(backbone, **options), config["precision"])
    layers = options.get("layers", backbone.layers)
    variables = backbones.load_weights(backbone, config["backbone"]["weights"], layers, jax.random.key(config["seed"]))
    weights = config["backbone"]["weights"] or backbone.hub or ""
    record = {"name": backbone.name, "weights": weights, "hash": backbones.content_hash(variables)}
    frozen = {"backbone": variables}
    return Model(detector, frozen, precompute(frozen, config["precision"]), _transform(config), record)


def _transform(config: Mapping[str, Any]) -> Transform:
    sizes = (config["data"][key] for key in _SIZES)
    resize, crop, tile = (tuple(size) * (2 // len(size)) if isinstance(size, list) else size for size in sizes)
    tile = (tile, tile) if isinstance(tile, int) else tile
    return Transform(resize, crop, tile if any(tile) else None, float(config["data"]["overlap"]))


class Data(NamedTuple):
    """The images of a resolved config.

    Attributes:
      dataset: the index and how to read it.
      split: the protocol's train, validation and test items.
    """

    dataset: Dataset
    split: Split


def source_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys under `data` that say what is read, and not how it goes through the network: `data.load`'s keywords."""
    return {key: value for key, value in config["data"].items() if key not in (*_SIZES, "overlap", "batch_size", "workers")}


def build_data(config: Mapping[str, Any]) -> Data:
    """The data set of a resolved config under its protocol."""
    dataset = data.load(**source_options(config), seed=config["seed"])
    return Data(dataset, data.split(dataset, **config["protocol"], holdout=config["threshold"]["holdout"], seed=config["seed"]))


def spec_of(config: Mapping[str, Any], built: Data, transform: Transform) -> DataSpec:
    """What the detector may know: counts, categories and the shape of the first image after the transform."""
    dataset, split = built
    normal = data.in_tiles(dataset, transform, [item for item in split.train if not item.label])
    # under zero_shot there is no training image
    first = (normal or data.in_tiles(dataset, transform, split.test[:1]))[0]
    image, _ = data.read_transformed(dataset, transform, first)
    validation = data.in_tiles(dataset, transform, split.validation)
    steps = max(1, data.num_batches(normal, config["data"]["batch_size"]))
    size = config["data"]["batch_size"]
    return DataSpec(len(normal), image.shape, dataset.categories, len(validation), steps, size)


def fingerprint(value: Any) -> str:
    """SHA-256 of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
