"""A resolved config as images, frozen networks and a detector."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from iadjax import backbones, data, detectors
from iadjax.config.schema import GEOMETRY, SIZES
from iadjax.cpu.prepared import precompute
from iadjax.data import Dataset, Split, Transform
from iadjax.detector import DataSpec, Detector, Frozen
from iadjax.nn.precision import mixed_precision

__all__ = ["Data", "Model", "build_data", "build_model", "source_options", "spec_of"]


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
    sizes = (config["data"][key] for key in SIZES)
    resize, crop, tile = (tuple(size) * (2 // len(size)) if isinstance(size, list) else size for size in sizes)
    tile = (tile, tile) if isinstance(tile, int) else tile
    rest = (config["data"][key] for key in ("resize_side", "interpolation", "crop_multiple"))
    return Transform(resize, crop, tile if any(tile) else None, float(config["data"]["tile_overlap"]), *rest)


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
    return {key: value for key, value in config["data"].items() if key not in (*GEOMETRY, "batch_size", "workers")}


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
