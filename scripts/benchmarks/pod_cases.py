"""The programs of `pod.py`: what each computes on how many rows, and what docs/scaling.md says that one chip does."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from device_cases import flops
from jax.sharding import NamedSharding, PartitionSpec

from iadjax import backbones, detectors, ops
from iadjax.detector import Batch, DataSpec, embed_shapes
from iadjax.detectors.families.bank import Memory
from iadjax.ops import coreset
from iadjax.parallel.axis import AXIS
from iadjax.parallel.jit import jit_embed, jit_predict, jit_update
from iadjax.parallel.placement import Devices, state_shardings

__all__ = ["CASES", "HBM", "Case", "Program"]

# bytes of a chip, by what the compiler calls it
HBM = {"TPU v5 lite": 16 * 2**30, "TPU v5": 95 * 2**30}

# patches of an image of 224 px, numbers of each, and the images of a batch that is searched
PATCHES, DEPTH, SEARCHED = 784, 1024, 16
# images of a training step for each chip
IMAGES = 4


class Program(NamedTuple):
    """One program for all chips.

    Attributes:
      function: compiled by `jax.jit`, as the driver does it.
      arguments: shapes, dtypes and places.
      size: what was compiled, in words.
      operations: of one chip, by the cost model; of a training step, those of one device divided by the chips.
      arguments_bytes: of one chip, by the cost model.
      sent: bytes that one chip sends, by the cost model.
      counted: `(function, arguments, operations)` of a program whose loops have one step, whose operations are counted in
        place of this one's: a compiler counts the body of a loop once.
    """

    function: Callable
    arguments: tuple[Any, ...]
    size: str
    operations: float
    arguments_bytes: float
    sent: float
    counted: tuple[Callable, tuple[Any, ...], float] | None = None


class Case(NamedTuple):
    """A row of the table.

    Attributes:
      stage: its name in docs/scaling.md.
      program: `(devices, bytes of a chip) -> Program`.
    """

    stage: str
    program: Callable[[Devices, int], Program]


def _array(devices: Devices, shape: tuple[int, ...], dtype: Any = jnp.float32, *axes: str | None) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(devices.mesh, PartitionSpec(*axes)))


def _everywhere(devices: Devices, tree: Any) -> Any:
    return jax.tree.map(lambda leaf: _array(devices, leaf.shape, leaf.dtype), tree)


def _key(devices: Devices) -> Any:
    return _everywhere(devices, jax.eval_shape(lambda: jax.random.key(0)))


def _bytes(tree: Any) -> int:
    """Of the arrays of a tree on one chip."""
    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * jnp.dtype(leaf.dtype).itemsize
        if not jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        else 8
        for leaf in jax.tree.leaves(tree)
    )


def _rows(devices: Devices, wanted: int, depth: int, memory: int) -> int:
    """The rows that are wanted, or as many tenths of them as leave half of each chip free."""
    while 4 * wanted * depth / devices.count > memory / 2:
        wanted //= 10
    return ops.padded_rows(wanted)


def _queries_and_bank(devices: Devices, queries: int, rows: int) -> tuple[jax.ShapeDtypeStruct, jax.ShapeDtypeStruct]:
    return tuple(_array(devices, (count, DEPTH), jnp.float32, AXIS) for count in (queries, rows))


def _one_tile(devices: Devices) -> tuple[Callable, tuple[Any, ...], float]:
    """The search of 1,024 queries in 1,024 rows a chip, without loops, and its operations by the model."""
    queries, rows = 1024, 1024 * devices.count
    search = functools.partial(ops.nearest_neighbors, k=9, byte_budget=2**40)
    return jax.jit(search), _queries_and_bank(devices, queries, rows), 2 * queries * rows * DEPTH / devices.count


def _knn(devices: Devices, memory: int) -> Program:
    queries, rows = SEARCHED * PATCHES, _rows(devices, 10**8, DEPTH, memory)
    return Program(
        jax.jit(functools.partial(ops.nearest_neighbors, k=9)),
        _queries_and_bank(devices, queries, rows),
        f"{queries:,} queries, {rows:,} rows of {DEPTH:,}",
        2 * queries * rows * DEPTH / devices.count,
        4 * DEPTH * (rows + queries) / devices.count,
        (4 * DEPTH + 12 * 9) * queries,
        _one_tile(devices),
    )


def _coreset(devices: Devices, memory: int) -> Program:
    depth = 505
    rows = _rows(devices, 780_000_000, depth, memory)

    def one_pass(points, squares, distances, group):
        return coreset._update(points, squares, distances, group, 512, 512)

    def arguments(count):
        column = _array(devices, (count,), jnp.float32, AXIS)
        return _array(devices, (count, depth), jnp.float32, AXIS), column, column, _array(devices, (512,), jnp.int32)

    def work(count):
        # its part against the centres, and the farthest points against each other, which every chip does
        return 2 * 512 * count * depth / devices.count + 2 * 512**2 * depth

    # so few that each chip has one block
    small = 1024 * devices.count
    return Program(
        jax.jit(one_pass, donate_argnums=2),
        arguments(rows),
        f"{rows:,} rows of {depth}, 512 new centres",
        work(rows),
        4 * rows * (depth + 2) / devices.count + 4 * 512,
        4 * (513 * (2 + depth) + 512 * depth),
        (jax.jit(one_pass), arguments(small), work(small)),
    )


def _networks(name: str, network: str, side: int, devices: Devices, images: int, num_images: int = 1000, **options):
    """Detector, shapes of its frozen network and state, spec, and a batch of `images` for all chips."""
    backbone = backbones.backbone(network)
    detector = detectors.factory(name)(backbone, **options)
    wanted = options.get("layers", detectors.options(name)["layers"])
    frozen = _everywhere(
        devices, {"backbone": jax.eval_shape(lambda key: backbone.init(key, tuple(wanted)), jax.random.key(0))}
    )
    shape = (side, side, 3)
    spec = DataSpec(
        num_images, shape, ("a",), steps_per_epoch=10, batch_size=images, features=embed_shapes(detector, frozen, shape)
    )
    state = jax.eval_shape(lambda key, frozen: detector.init(key, frozen, spec), jax.random.key(0), frozen)
    places = state_shardings(devices, detector, state)
    state = jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, places)
    features = jax.tree.map(lambda leaf: _array(devices, (images, *leaf.shape[1:]), leaf.dtype, AXIS), spec.features)
    image = _array(devices, (images, *shape), jnp.float32, AXIS)
    numbers = _array(devices, (images,), jnp.int32, AXIS)
    batch = Batch(image, features, numbers, numbers, {}, _array(devices, (images,), bool, AXIS))
    return detector, spec, frozen, state, batch


def _step(name: str, network: str, side: int, devices: Devices, **options):
    """The first phase's update of a trained detector on features that are there, compiled and not, and its arguments."""
    detector, spec, frozen, state, batch = _networks(name, network, side, devices, IMAGES * devices.count, **options)
    phase = detector.phases(spec)[0]
    batch = batch._replace(image=batch.image if phase.needs_image else None)
    return jit_update(devices, detector, phase.update, state), phase.update, (_key(devices), state, frozen, batch)


def _update(
    name: str, network: str, side: int, devices: Devices, memory: int, once: dict[str, Any] | None = None, **options
) -> Program:
    """A training step; `once`: options with which its loops have one step."""
    del memory
    function, update, arguments = _step(name, network, side, devices, **options)
    _, state, _, batch = arguments
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"]))
    counted = None
    if once:
        few, single, given = _step(name, network, side, devices, **{**options, **once})
        counted = few, given, flops(jax.jit(single), *given) / devices.count
    # frozen networks are no arguments of a step on features: the compiler drops them
    return Program(
        function,
        arguments,
        f"{network}, {side} px, {IMAGES} images a chip, {parameters / 1e6:.1f} M parameters",
        flops(jax.jit(update), *arguments) / devices.count,
        _bytes((state, batch)),
        4 * parameters,
        counted,
    )


def _embed(devices: Devices, memory: int) -> Program:
    del memory
    images = IMAGES * devices.count
    detector, _, frozen, _, batch = _networks("patchcore", "wide_resnet50_2", 224, devices, images)
    return Program(
        jit_embed(devices, detector.embed),
        (frozen, batch.image),
        f"wide_resnet50_2, 224 px, {IMAGES} images a chip",
        flops(jax.jit(detector.embed), frozen, batch.image) / devices.count,
        _bytes((frozen, batch.image)),
        0.0,
    )


def _patchcore(devices: Devices, rows: int):
    """PatchCore with room for so many rows, and a batch of features."""
    images, sizes = -(-rows // PATCHES), {"embedding": "unfold", "pretrain_dimension": DEPTH, "target_dimension": DEPTH}
    return _networks("patchcore", "wide_resnet50_2", 224, devices, _searched(devices), images, **sizes)


def _searched(devices: Devices) -> int:
    """`SEARCHED` images, or as many as batches are padded to."""
    return -(-SEARCHED // devices.count) * devices.count


def _fill(devices: Devices, memory: int) -> Program:
    detector, spec, frozen, state, batch = _patchcore(devices, _rows(devices, 10**8, DEPTH, memory))
    batch = batch._replace(image=None)
    depth = state.features.shape[1]
    return Program(
        jit_update(devices, detector, detector.phases(spec)[0].update, state),
        (_key(devices), state, frozen, batch),
        f"{_searched(devices)} images into {len(state.features):,} rows of {depth:,}",
        0.0,
        _bytes((state, batch)),
        4 * _searched(devices) * PATCHES * depth,
    )


def _predict(devices: Devices, memory: int) -> Program:
    """PatchCore's prediction from features: the search, whose operations are counted, scores and maps."""
    rows = _rows(devices, 10**8, DEPTH, memory)
    detector, _, frozen, bank, batch = _patchcore(devices, rows)
    state = Memory(bank.features, _array(devices, (len(bank.features),), jnp.float32, AXIS), *bank[1:])
    return Program(
        jit_predict(devices, detector.predict),
        (state, frozen, batch),
        f"{_searched(devices)} images, {rows:,} rows of {DEPTH:,}",
        2 * _searched(devices) * PATCHES * state.features.size / devices.count,
        _bytes((state.features, batch.features)),
        (4 * DEPTH + 12 * 9) * _searched(devices) * PATCHES,
        _one_tile(devices),
    )


def _padim(devices: Devices, memory: int) -> Program:
    del memory
    images = IMAGES * devices.count
    detector, spec, frozen, state, batch = _networks("padim", "wide_resnet50_2", 256, devices, images, num_channels=550)
    batch = batch._replace(image=None)
    positions, depth = 64 * 64, 550
    return Program(
        jit_update(devices, detector, detector.phases(spec)[0].update, state),
        (_key(devices), state, frozen, batch),
        f"wide_resnet50_2, 256 px, {IMAGES} images a chip, {positions:,} Gaussians of {depth}",
        2 * images * positions * depth**2 / devices.count,
        _bytes((state, batch)),
        4 * images * positions * depth / devices.count,
    )


CASES = {
    "knn": Case("k-NN of a batch", _knn),
    "coreset": Case("a pass of the coreset", _coreset),
    "embed": Case("features", _embed),
    "fill": Case("filling the bank", _fill),
    "predict": Case("a prediction of PatchCore", _predict),
    "padim": Case("PaDiM's Gaussians", _padim),
    "rd4ad": Case("a training step of RD4AD", functools.partial(_update, "rd4ad", "wide_resnet50_2", 256)),
    "fastflow": Case(
        "a training step of FastFlow",
        functools.partial(_update, "fastflow", "wide_resnet50_2", 256, once={"flow_steps": 2}, conv3x3_only=False),
    ),
    "uniad": Case(
        "a training step of UniAD",
        functools.partial(_update, "uniad", "efficientnet_b4_static", 224, layers=("stage1", "stage2", "stage3", "stage5")),
    ),
    "dinomaly": Case(
        "a training step of Dinomaly",
        functools.partial(
            _update, "dinomaly", "dinov2_vitb14_reg_offset", 392, layers=tuple(f"block{i}" for i in range(3, 11))
        ),
    ),
}
