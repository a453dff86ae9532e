"""A resolved config as images, frozen networks and a detector."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from iadjax import backbones, data, detectors, progress
from iadjax.backbones import Backbone
from iadjax.config.schema import GEOMETRY, READING, SIZES
from iadjax.cpu.prepared import precompute
from iadjax.data import Dataset, Split, Transform
from iadjax.detector import DataSpec, Detector, Frozen, embed_shapes
from iadjax.errors import UserError
from iadjax.nn.precision import mixed_precision

__all__ = [
    "Data", "Model", "build_data", "build_model", "load_frozen", "network_keys", "network_names", "outline_model",
    "source_options", "spec_of", "with_features", "with_weights",
]  # fmt: skip


class Model(NamedTuple):
    """A detector and what it runs on.

    Attributes:
      detector: the pure functions.
      frozen: variables of the frozen networks by name; their shapes alone in what `outline_model` gives.
      ready: the same for updates and predictions, see `cpu.prepared.precompute`.
      transform: resize and crop.
      weights: {network: {"name", "weights", "hash"}}, as recorded beside every number.
    """

    detector: Detector
    frozen: Frozen
    ready: Frozen
    transform: Transform
    weights: dict[str, dict[str, str]]


def outline_model(config: Mapping[str, Any]) -> Model:
    """The model of a resolved config without weights; its options are checked."""
    options = dict(config["detector"])
    build: Callable = detectors.factory(options.pop("name"))
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    networks = _networks(config)
    detector = _in_precision(build(*networks.values(), **options), config["precision"])
    key = jax.random.key(config["seed"])
    frozen = {name: jax.eval_shape(functools.partial(_init, config, name, each), key) for name, each in networks.items()}
    return Model(detector, frozen, frozen, _transform(config), {})


def _init(config: Mapping[str, Any], name: str, network: Backbone, key: jax.Array) -> Any:
    return network.init(key, _layers(config, name, network))


def load_frozen(config: Mapping[str, Any], model: Model, carried: Mapping[str, str] | None = None) -> Model:
    """The model with the variables of its frozen networks loaded.

    Args:
      config: a resolved config.
      model: of `outline_model`.
      carried: files of weights to read instead of those that the config names, by network; they must hold the same.
    """
    frozen, record = {}, {}
    for name, network in _networks(config).items():
        weights = network_keys(config, name)["weights"]
        key = jax.random.key(config["seed"])
        source = (carried or {}).get(name, weights)
        frozen[name] = backbones.load_weights(network, source, _layers(config, name, network), key)
        digest = backbones.content_hash(frozen[name])
        record[name] = {"name": network.name, "weights": weights or network.hub or "", "hash": digest}
    return model._replace(frozen=frozen, ready=precompute(frozen, config["precision"]), weights=record)


def build_model(config: Mapping[str, Any], carried: Mapping[str, str] | None = None) -> Model:
    """The detector of a resolved config, with the variables of its frozen networks loaded; `carried`: see `load_frozen`."""
    return load_frozen(config, outline_model(config), carried)


def network_keys(config: Mapping[str, Any], name: str) -> dict[str, str]:
    """{"name", "weights"} of a frozen network: `config.backbone`, or one of `config.networks`."""
    return config["backbone"] if name == "backbone" else config["networks"][name]


def network_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the detector's frozen networks."""
    return detectors.networks(config["detector"]["name"])


def with_weights(config: dict[str, Any], weights: Mapping[str, str]) -> dict[str, Any]:
    """The config with other weights, a file or a Hub tag by network."""
    for name, each in weights.items():
        if name == "backbone":
            config = {**config, "backbone": {**config["backbone"], "weights": each}}
        else:
            config = {**config, "networks": {**config["networks"], name: {**config["networks"][name], "weights": each}}}
    return config


def _networks(config: Mapping[str, Any]) -> dict[str, Backbone]:
    return {name: backbones.backbone(network_keys(config, name)["name"]) for name in network_names(config)}


def _layers(config: Mapping[str, Any], name: str, network: Backbone) -> Sequence[str]:
    """The layers of a network that the detector asks for: its option `layers` or `layer`, or `<network>_layers` of the others.

    `class_layer` is one more, of the backbone.
    """
    options = config["detector"]
    if name == "backbone" and "layer" in options:
        return (options["layer"],)
    layers = tuple(options.get("layers" if name == "backbone" else f"{name}_layers", network.layers))
    more = options.get("class_layer") if name == "backbone" else None
    return layers if more is None or more in layers else (*layers, more)


def _in_precision(detector: Detector, precision: str) -> Detector:
    def phases(spec):
        return tuple(phase._replace(update=mixed_precision(phase.update, precision)) for phase in detector.phases(spec))

    embed = detector.embed and mixed_precision(detector.embed, precision)
    return detector._replace(phases=phases, embed=embed, predict=mixed_precision(detector.predict, precision))


def _transform(config: Mapping[str, Any]) -> Transform:
    sizes = (config["data"][key] for key in SIZES)
    resize, crop, tile = (tuple(size) * (2 // len(size)) if isinstance(size, list) else size for size in sizes)
    tile = (tile, tile) if isinstance(tile, int) else tile
    rest = (config["data"][key] for key in ("resize_side", "interpolation", "crop_multiple"))
    tile = tile if any(tile) else None
    # a run of an earlier version has not got them
    reading = {key: config["data"].get(key, default) for key, default in READING.items()}
    reading["channels"] = data.check_channels(reading["channels"])
    overlap, sigma = float(config["data"]["tile_overlap"]), float(config["evaluate"]["map_sigma"])
    return Transform(resize, crop, tile, overlap, *rest, sigma, **reading)


class Data(NamedTuple):
    """The images of a resolved config.

    Attributes:
      dataset: the index and how to read it.
      split: the protocol's train, validation and test items.
    """

    dataset: Dataset
    split: Split


_PIPELINE = (*GEOMETRY, "batch_size", "workers", "feature_cache_bytes")


def source_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """The keys under `data` that say what is read, not how it is resized and batched: the keywords of `data.load`."""
    return {key: value for key, value in config["data"].items() if key not in _PIPELINE}


def build_data(config: Mapping[str, Any], fitted: bool = False) -> Data:
    """The data set of a resolved config under its protocol.

    Args:
      config: resolved.
      fitted: whether a detector was fitted already, so that the images of `protocol.source` are not asked for.
    """
    dataset = data.load(**source_options(config), seed=config["seed"])
    if config["protocol"]["name"] == "zero_shot" and config["protocol"]["source"] and not fitted:
        dataset = data.with_auxiliary(dataset, _source(config))
    for remark in data.remarks(dataset):
        # a sequence of fits builds the same data again and again
        progress.say_once(f"{config['data']['root']} {remark}", f"data: {remark}")
    if config["data"].get("value_range", "auto") != "auto":
        progress.say_once(
            "range",
            f"data: {config['data']['value_range']:g} becomes 1.0 in files of more than 8 bits, and what lies above it too "
            "(data.value_range); 255 stays the white of 8 bits",
        )
    return Data(dataset, data.split(dataset, **config["protocol"], holdout=config["threshold"]["holdout"], seed=config["seed"]))


def _source(config: Mapping[str, Any]) -> Dataset:
    """The data set of `protocol.source`; its files are read as those of the other one."""
    name, _, category = config["protocol"]["source"].partition(":")
    root, own = config["protocol"].get("source_root", ""), config["data"]
    if name == own["name"] and root == own["root"] and name != "synthetic":
        raise UserError("protocol.source is the data set that is tested; name another one, or another protocol.source_root")
    try:
        reading = {key: own[key] for key in READING}
        source = data.load(name, root=root, category=category or "all", seed=config["seed"], **reading)
    except UserError as error:
        raise UserError(f"protocol.source: {error}") from error
    if {"synthetic"} == {name, own["name"]} and set(source.categories) & set(data.load(**source_options(config)).categories):
        raise UserError("protocol.source has categories that are tested; name others, like synthetic:wood")
    if not source.test:
        raise UserError(f"protocol.source={name} has no test images to train on; name another data set")
    return source


def spec_of(config: Mapping[str, Any], built: Data, model: Model) -> DataSpec:
    """What the detector may know: counts, categories, and the shapes of a transformed image and of its features."""
    dataset, split = built
    normal = data.in_tiles(dataset, model.transform, [item for item in split.train if not item.label])
    # under zero_shot there is no training image
    first = (normal or data.in_tiles(dataset, model.transform, split.test[:1]))[0]
    shape = data.read_transformed(dataset, model.transform, first)[0].shape
    validation = data.in_tiles(dataset, model.transform, split.validation)
    size = config["data"]["batch_size"]
    steps = max(1, data.num_batches(normal, size))
    return with_features(DataSpec(len(normal), shape, dataset.categories, len(validation), steps, size), model)


def with_features(spec: DataSpec, model: Model) -> DataSpec:
    """The spec with the shapes of `Detector.embed`."""
    return spec._replace(features=embed_shapes(model.detector, model.frozen, spec.image_shape))
