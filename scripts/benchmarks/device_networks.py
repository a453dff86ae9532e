"""Stages of `device.py` that run networks: frozen ones, training steps, PatchCore's prediction."""

import functools
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from device_cases import Case, Sizes, flops, largest_difference, precise
from flax.traverse_util import flatten_dict

from iadjax import backbones, detectors, ops
from iadjax.backbones import weights
from iadjax.backbones.vit import SPECS as VITS
from iadjax.cpu.prepared import precompute
from iadjax.detector import Batch, DataSpec, embed_shapes
from iadjax.detectors.families.bank import Memory
from iadjax.nn.precision import PRECISIONS, mixed_precision

__all__ = ["backbone_cases", "cfa_cases", "patchcore_cases", "training_case"]

LAYERS = ("layer1", "layer2", "layer3")
BLOCKS = backbones.SPECS["resnet18"][1]


def shaken(variables: Any) -> Any:
    """Variables whose vectors (scales, biases, statistics) are not all alike, so that the outputs depend on each of them."""
    rng = np.random.default_rng(0)

    def shake(leaf):
        plain = leaf.ndim != 1 or not jnp.issubdtype(leaf.dtype, jnp.floating)
        return leaf if plain else leaf + 0.1 * rng.random(leaf.shape, np.float32)

    return jax.tree.map(shake, variables)


def torch_tensors(variables: Any, name: Callable[[tuple[str, ...]], str] = weights.torch_name) -> dict[str, np.ndarray]:
    """Variables as PyTorch names and lays them out."""
    tensors = {}
    for path, leaf in flatten_dict(variables).items():
        orders = {"transposed_kernel": (2, 3, 0, 1), "kernel": (3, 2, 0, 1) if leaf.ndim == 4 else (1, 0)}
        order = (2, 0, 1) if path[1].startswith("norms") else orders.get(path[-1], range(leaf.ndim))
        tensors[name(path)] = np.asarray(leaf).transpose(order)
    return tensors


def our_layout(path: tuple[str, ...], tensor: np.ndarray) -> np.ndarray:
    """The way back; FastFlow's norms over [C, h, w] are over [h, w, C] here."""
    return tensor.transpose(1, 2, 0) if path[1].startswith("norms") else weights.torch_layout(path, tensor)


def network(name: str, layers: tuple[str, ...]) -> tuple[backbones.Backbone, Any, dict[str, np.ndarray]]:
    """A backbone, random variables and the same as PyTorch tensors."""
    backbone = backbones.backbone(name)
    variables = shaken(jax.jit(lambda key: backbone.init(key, layers))(jax.random.key(0)))
    return backbone, variables, torch_tensors(variables, backbone.weight_name)


def images(number: int, side: int) -> np.ndarray:
    return np.random.default_rng(1).random((number, side, side, 3), np.float32)


def backbone_cases(size: Sizes, name: str) -> Iterator[Case]:
    layers = ("norm",) if name in VITS else (*LAYERS, "layer4")
    backbone, variables, tensors = network(name, layers)
    for precision in PRECISIONS:
        forward = lambda frozen, image: backbone.features(frozen, image, layers)  # noqa: E731
        program = jax.jit(mixed_precision(forward, precision))
        ready = precompute(variables, precision)
        for batch in size.batches:
            host = images(batch, size.vit_side if name in VITS else size.side)
            image = jnp.asarray(host)

            def theirs(module, wrap, host=host, precision=precision, rounded=False):
                if name in VITS:
                    return module.vit(tensors, host, VITS[name], precision, rounded, wrap)
                spec = *backbones.SPECS[name][:2], layers
                return module.resnet(tensors, host, *spec, precision, rounded, wrap)

            yield Case(
                f"{name} {precision}, batch {batch}",
                functools.partial(program, ready, image),
                theirs,
                flops(program, ready, image),
                "FLOP",
                "cost analysis",
                precision,
                precise() if precision == "float32" else 0.06,
                batch,
                theirs_rounded=functools.partial(theirs, rounded=True) if precision == "bfloat16" else None,
            )


def batch_of(image) -> Batch:
    """A batch of normal images without padded rows."""
    number = len(image)
    zeros = jnp.zeros(number, jnp.int32)
    return Batch(image, (), zeros, jnp.arange(number, dtype=jnp.int32), {}, jnp.ones(number, bool), None, zeros)


def spec_of(detector, frozen, number: int, shape: tuple[int, int, int]) -> DataSpec:
    """What a detector knows of so many images."""
    features = embed_shapes(detector, {"backbone": frozen}, shape)
    return DataSpec(number, shape, ("a",), batch_size=number, features=features)


def relative_norm(ours: Any, theirs: Any) -> float:
    """|a - b| / |b| of all arrays together: rounding turns a rectifier or a neighbour here and there."""
    a, b = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(each)]) for each in (ours, theirs))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def training_forms():
    return importlib.import_module("device_torch_training")


def first_moments(optimizer):
    """Those of Adam, or the momentum of SGD."""
    kinds = optax.ScaleByAdamState, optax.ScaleByAmsgradState, optax.TraceState
    states = jax.tree.leaves(optimizer, is_leaf=lambda leaf: isinstance(leaf, kinds))
    (found,) = (leaf.trace if isinstance(leaf, optax.TraceState) else leaf.mu for leaf in states if isinstance(leaf, kinds))
    return found


def training_case(size: Sizes, name: str) -> Iterator[Case]:
    key = jax.random.key(0)
    backbone, frozen, tensors = network("resnet18", LAYERS)
    detector = detectors.factory(name)(backbone, layers=LAYERS)
    number, host = size.train_batch, images(size.train_batch, size.side)
    batch, spec = batch_of(jnp.asarray(host)), spec_of(detector, frozen, number, host.shape[1:])
    state = jax.jit(lambda key, frozen: detector.init(key, frozen, spec))(key, {"backbone": frozen})
    ready = precompute({"backbone": frozen}, "float32")
    state = state._replace(variables=shaken(state.variables))
    theirs = torch_tensors(state.variables)
    arguments = key, state, ready, batch
    (phase,) = detector.phases(spec)

    def step(key, state, frozen, batch):
        """The frozen network and the update, as PyTorch's step has both."""
        features = detector.embed(frozen, batch.image)
        return phase.update(key, state, frozen, batch._replace(features=features, mask=None))

    program = jax.jit(step, donate_argnums=1)
    work = flops(program, *arguments)
    params = jax.eval_shape(lambda: state.variables["params"])
    held = [state]

    def ours():
        held[0], info = program(key, held[0], ready, batch)
        return [info["loss"], first_moments(held[0].optimizer)]

    def difference(ours, theirs):
        # first moments are gradients
        moments = weights.fill({"params": params}, theirs[1], layout=our_layout)["params"]
        return max(largest_difference(ours[0], theirs[0]), relative_norm(ours[1], moments))

    options = {"steps": detectors.options(name)["flow_steps"]} if name == "fastflow" else {}
    yield Case(
        f"{name} training step, batch {number}",
        ours,
        lambda _, wrap: getattr(training_forms(), name)(tensors, theirs, host, BLOCKS, wrap=wrap, **options),
        work,
        "FLOP",
        "cost analysis",
        "float32",
        5 * precise(),
        number,
        difference,
    )


def cfa_cases(size: Sizes) -> Iterator[Case]:
    key, (backbone, frozen, tensors) = jax.random.key(0), network("resnet18", LAYERS)
    detector = detectors.factory("cfa")(backbone, layers=LAYERS)
    number, host = size.train_batch, images(size.train_batch, size.side)
    batch, spec = batch_of(jnp.asarray(host)), spec_of(detector, frozen, number, host.shape[1:])
    ready = precompute({"backbone": frozen}, "float32")
    average, adapt = detector.phases(spec)
    state = jax.jit(lambda key: detector.init(key, ready, spec))(key)
    features = jax.jit(detector.embed)(ready, batch.image)
    state, _ = jax.jit(average.update)(key, state, ready, batch._replace(features=features))
    state = average.finalize(key, state, ready)
    params = state.trained.variables["params"]
    theirs = {
        "kernel": np.asarray(params["kernel"]).T,
        "bias": np.asarray(params["bias"]),
        "radius": np.asarray(params["radius"]),
    }
    centers = np.asarray(state.centers)

    def step(key, state, frozen, batch):
        features = detector.embed(frozen, batch.image)
        return adapt.update(key, state, frozen, batch._replace(features=features, image=None, mask=None))

    program = jax.jit(step, donate_argnums=1)
    work = flops(program, key, state, ready, batch)
    held = [state]

    def ours():
        held[0], info = program(key, held[0], ready, batch)
        return [info["loss"], first_moments(held[0].trained.optimizer)["kernel"]]

    yield Case(
        f"cfa training step, batch {number}",
        ours,
        lambda _, wrap: training_forms().cfa(tensors, theirs, centers, host, BLOCKS, wrap),
        work,
        "FLOP",
        "cost analysis",
        "float32",
        # rounding swaps centres of almost one distance
        3e-2,
        number,
        lambda ours, theirs: max(largest_difference(ours[0], theirs[0]), relative_norm(ours[1], theirs[1]["kernel"].T)),
    )


def patchcore_cases(size: Sizes) -> Iterator[Case]:
    backbone, frozen, tensors = network("resnet18", LAYERS)
    frozen = precompute({"backbone": frozen}, "float32")
    detector = detectors.factory("patchcore")(backbone)
    number = -(-size.bank // (size.side // 8) ** 2)
    batch = batch_of(images(number, size.side))
    features = jax.jit(detector.embed)(frozen, batch.image)
    bank = np.asarray(features).reshape(-1, features.shape[-1])[: size.bank]
    held, one = ops.take_rows(jnp.asarray(bank), jnp.arange(len(bank), dtype=jnp.int32)), jnp.int32(1)
    state = Memory(held, jnp.ones(len(held)), jnp.zeros((len(held), 3), jnp.int32), jnp.int32(len(bank)), one, one)
    image = np.random.default_rng(2).random((1, size.side, size.side, 3), np.float32)

    def predict(state, frozen, image):
        return detector.predict(state, frozen, batch_of(image)._replace(features=detector.embed(frozen, image)))

    program = jax.jit(predict)
    yield Case(
        f"PatchCore predict, bank {len(bank)} x {bank.shape[1]}, batch 1",
        lambda: jax.device_get(program(state, frozen, image)),
        lambda module, wrap: module.patchcore(tensors, bank, image, BLOCKS, wrap),
        flops(program, state, frozen, image),
        "FLOP",
        "cost analysis",
        "float32",
        precise(),
    )
