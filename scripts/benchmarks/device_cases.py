"""The stages of `device.py`: inputs, the call here, that of `device_torch.py`, and the work in it."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from iadjax import backbones, detectors, metrics, ops
from iadjax.backbones import weights
from iadjax.backbones.vit import SPECS as VITS
from iadjax.cpu.prepared import precompute
from iadjax.detector import Batch, DataSpec, embed_shapes
from iadjax.detectors.families.bank import Memory
from iadjax.nn.precision import PRECISIONS, mixed_precision

__all__ = ["ACCELERATOR", "CASES", "CPU", "SMALL", "Case", "Sizes", "backbone_cases", "largest_difference"]

LAYERS = ("layer1", "layer2", "layer3")
BLOCKS = backbones.SPECS["resnet18"][1]


class Sizes(NamedTuple):
    """How large the stages are; `side` and `vit_side`: of images."""

    side: int
    vit_side: int
    batches: tuple[int, ...]
    train_batch: int
    knn: tuple[int, int, int]
    coreset: tuple[int, int, int]
    maps: int
    aupro: int
    bank: int
    matrix: int
    copied: int


SMALL = Sizes(96, 56, (1, 2), 2, (64, 512, 32), (512, 32, 64), 2, 4, 100, 256, 2**20)
CPU = Sizes(256, 224, (1, 4, 8), 8, (784, 16_384, 1024), (20_000, 1024, 2000), 32, 100, 8000, 2048, 2**28)
ACCELERATOR = Sizes(256, 224, (1, 16, 128), 8, (12_544, 65_536, 1024), (200_000, 1024, 4000), 256, 100, 8000, 8192, 2**31)


class Case(NamedTuple):
    """One measurement.

    Attributes:
      name: of the row.
      ours: one call of iadjax; its outputs are a tree of arrays.
      theirs: `(module, wrap) -> the same call` of scripts/benchmarks/device_torch.py.
      work: of one call, in `unit` ("FLOP" or "B"), counted by `source` ("cost analysis" or "formula").
      ceiling: a key of the measured ceilings.
      tolerance: largest difference, as `difference` has it.
      images: in one call.
      difference: `(our outputs, theirs) -> float`; by default the largest difference over an array's largest value.
      theirs_rounded: like `theirs`, with weights that are rounded before the first call.
    """

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[Any, Callable], Callable[[], Any]]
    work: float
    unit: str
    source: str
    ceiling: str
    tolerance: float
    images: int = 1
    difference: Callable[[Any, Any], float] | None = None
    theirs_rounded: Callable[[Any, Callable], Callable[[], Any]] | None = None


def largest_difference(ours: Any, theirs: Any) -> float:
    """The largest |a - b| / max |b| of pairs of arrays; infinite where they do not pair or are not finite."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    if any(np.shape(a) != np.shape(b) or not np.isfinite(a).all() for a, b in pairs):
        return float("inf")
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def flops(program: Callable, *arguments: Any) -> float:
    """Of the plain form of every operation, which accelerators get; on a CPU some convolutions take fewer."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    # clients of accelerators have no analysis of a program that is not compiled
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        return float(program.trace(*shapes).lower(lowering_platforms=("cuda",)).cost_analysis()["flops"])


def precise() -> float:
    """Tolerance of networks in float32, whose products accelerators round to TF32 or bfloat16 by default."""
    return 1e-3 if jax.default_backend() == "cpu" else 3e-2


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


def backbone_cases(size: Sizes, names: Sequence[str] = ("resnet18", "wide_resnet50_2", "dinov2_vits14")) -> Iterator[Case]:
    for name in names:
        layers = ("norm",) if name in VITS else (*LAYERS, "layer4")
        backbone, variables, tensors = network(name, layers)
        for precision in PRECISIONS:
            forward = lambda frozen, image: backbone.features(frozen, image, layers)  # noqa: B023, E731
            program = jax.jit(mixed_precision(forward, precision))
            ready = precompute(variables, precision)
            for batch in size.batches:
                host = images(batch, size.vit_side if name in VITS else size.side)
                image = jnp.asarray(host)

                def theirs(module, wrap, host=host, precision=precision, rounded=False):
                    if name in VITS:  # noqa: B023
                        return module.vit(tensors, host, VITS[name], precision, rounded, wrap)  # noqa: B023
                    spec = *backbones.SPECS[name][:2], layers  # noqa: B023
                    return module.resnet(tensors, host, *spec, precision, rounded, wrap)  # noqa: B023

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


def knn_cases(size: Sizes) -> Iterator[Case]:
    number, rows, depth = size.knn
    rng = np.random.default_rng(0)
    queries, bank = (rng.standard_normal((each, depth), np.float32) for each in (number, rows))
    for k in (1, 9):
        search = jax.jit(lambda q, b, k=k: ops.nearest_neighbors(q, b, k)[0])
        yield Case(
            f"k-NN {number} x {depth} against {rows}, k = {k}",
            functools.partial(search, jnp.asarray(queries), jnp.asarray(bank)),
            lambda module, wrap, k=k: module.knn(queries, bank, k, wrap),
            2.0 * number * rows * depth,
            "FLOP",
            "formula",
            "float32 highest",
            1e-4,
        )


def coreset_cases(size: Sizes) -> Iterator[Case]:
    rows, depth, picks = size.coreset
    # clusters behind a rectifier, as features are
    rng = np.random.default_rng(0)
    points = rng.standard_normal((60, depth), np.float32)[rng.integers(0, 60, rows)]
    points = np.maximum(points + 0.6 * rng.standard_normal(points.shape, np.float32), 0)
    ours = jnp.asarray(points)

    def missed(ours, theirs):
        # rounding may swap two picks of almost one distance
        return 1 - len(np.intersect1d(ours, theirs[0])) / picks

    yield Case(
        f"coreset {rows} x {depth} to {picks}",
        lambda: ops.k_center_greedy(ours, picks),
        lambda module, wrap: module.coreset(points, picks, wrap),
        2.0 * rows * depth * picks,
        "FLOP",
        "formula",
        "float32 highest",
        0.01,
        difference=missed,
    )


def blur_cases(size: Sizes) -> Iterator[Case]:
    side = size.side // 8
    maps = np.random.default_rng(0).random((size.maps, side, side), np.float32)

    def smooth(maps):
        return [ops.gaussian_blur(ops.resize(maps[..., None], (size.side, size.side))[..., 0])]

    yield Case(
        f"upsampling + blur, {size.maps} maps of {side} to {size.side}",
        functools.partial(jax.jit(smooth), jnp.asarray(maps)),
        lambda module, wrap: module.blur(maps, size.side, wrap),
        4.0 * size.maps * (side**2 + size.side**2),
        "B",
        "formula",
        "copy",
        1e-4,
        size.maps,
    )


def aupro_cases(size: Sizes) -> Iterator[Case]:
    rng = np.random.default_rng(0)
    maps = rng.standard_normal((size.aupro, size.side, size.side), np.float32)
    masks = np.zeros(maps.shape, bool)
    for mask in masks[size.aupro // 4 :]:
        for row, column in rng.integers(0, size.side * 3 // 4, (3, 2)):
            mask[row : row + size.side // 8, column : column + size.side // 6] = True
    maps[masks] += 1
    ours = maps if jax.default_backend() == "cpu" else jnp.asarray(maps)
    yield Case(
        f"AU-PRO of {size.aupro} maps of {size.side}",
        lambda: [metrics.aupro(ours, masks)],
        lambda module, wrap: module.aupro(maps, masks, wrap),
        5.0 * maps.size,
        "B",
        "formula",
        "copy",
        1e-5,
        size.aupro,
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
        return phase.update(key, state, frozen, batch._replace(features=features, image=None, mask=None))

    program = jax.jit(step, donate_argnums=1)
    work = flops(program, *arguments)
    params = jax.eval_shape(lambda: state.variables["params"])
    held = [state]

    def ours():
        held[0], info = program(key, held[0], ready, batch)
        moments = [leaf.mu for leaf in jax.tree.leaves(held[0].optimizer, is_leaf=is_adam) if is_adam(leaf)]
        return [info["loss"], moments[0]]

    def is_adam(leaf):
        return hasattr(leaf, "mu")

    def difference(ours, theirs):
        # first moments are gradients, compared over the largest of all
        moments = weights.fill({"params": params}, theirs[1], layout=our_layout)["params"]
        flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(each)]) for each in (ours[1], moments)]
        return largest_difference([ours[0], flat[0]], [theirs[0], flat[1]])

    options = {"steps": detectors.options(name)["flow_steps"]} if name == "fastflow" else {}
    yield Case(
        f"{name} training step, batch {number}",
        ours,
        lambda module, wrap: getattr(module, name)(tensors, theirs, host, BLOCKS, wrap=wrap, **options),
        work,
        "FLOP",
        "cost analysis",
        "float32",
        3 * precise(),
        number,
        difference,
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


CASES: Mapping[str, Callable[[Sizes], Iterator[Case]]] = {
    "backbone": backbone_cases,
    "knn": knn_cases,
    "coreset": coreset_cases,
    "blur": blur_cases,
    "aupro": aupro_cases,
    "rd4ad": functools.partial(training_case, name="rd4ad"),
    "fastflow": functools.partial(training_case, name="fastflow"),
    "patchcore": patchcore_cases,
}
