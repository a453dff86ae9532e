"""Times what detectors are made of on any device, against the ceilings of that device and against plain PyTorch.

    python scripts/benchmark_device.py --json=results/device_cpu.json
    python scripts/benchmark_device.py --stages=knn,coreset,rd4ad [--rounds=5] [--small]

Ceilings are measured in the same run: a large matrix product in the stage's precision, and reading and writing a large array.
Where PyTorch is installed and sees the same device it runs the same stages (scripts/device_torch.py) with the same number
of threads, on CUDA also compiled by `torch.compile`; a stage whose outputs differ gets no ratio, and the script ends with
status 1. Rounds alternate between the sides; the fastest round of each counts. The first call, which compiles, is not among
them; the JSON file has it. Weights are random: only speed is measured. Work is counted in FLOPs, by XLA's cost analysis of the
program before it is optimised (the same on every device) or by a formula (k-NN: 2 Q N D; coreset: 2 N D for each pick), or in
bytes that at least must move: every input read once, every output written once.
"""

import datetime
import functools
import importlib
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax.traverse_util import flatten_dict

from iadjax import UserError, backbones, cli, detectors, files, metrics, ops, record, weights
from iadjax.backbones.vit import SPECS as VITS
from iadjax.detector import Batch, DataSpec, Detector
from iadjax.errors import did_you_mean
from iadjax.precision import PRECISIONS, mixed_precision

_STAGES = flags.DEFINE_list("stages", [], "Stages to run; all by default.")
_SMALL = flags.DEFINE_bool("small", False, "Tiny sizes: whether it runs, not how fast.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds per measurement.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File for the figures.")

# a round repeats a short call for so many seconds
ROUND_SECONDS = 0.1
LAYERS = ("layer1", "layer2", "layer3")
BLOCKS = backbones.SPECS["resnet18"][1]
KEY = jax.random.key(0)


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
ACCELERATOR = Sizes(256, 224, (1, 16, 64, 256), 8, (12_544, 65_536, 1024), (200_000, 1024, 20_000), 256, 100, 8000, 8192, 2**31)


class Case(NamedTuple):
    """One measurement.

    Attributes:
      name: of the row.
      ours: one call of iadjax; its outputs are a tree of arrays.
      theirs: `(module, wrap) -> the same call` of scripts/device_torch.py.
      work: of one call, in `unit` ("FLOP" or "B"), counted by `source` ("cost analysis" or "formula").
      ceiling: a key of the measured ceilings.
      tolerance: largest difference, as `difference` has it.
      images: in one call.
      difference: `(our outputs, theirs) -> float`; by default the largest difference over an array's largest value.
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


def largest_difference(ours: Any, theirs: Any) -> float:
    """The largest |a - b| / max |b| of pairs of arrays; infinite where they do not pair or are not finite."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    if any(np.shape(a) != np.shape(b) or not np.isfinite(a).all() for a, b in pairs):
        return float("inf")
    return max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in pairs)


def flops(program: Callable, *arguments: Any) -> float:
    return float(program.lower(*arguments).cost_analysis()["flops"])


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
    variables = shaken(jax.jit(lambda key: backbone.init(key, layers))(KEY))
    return backbone, variables, torch_tensors(variables, backbone.weight_name)


def images(number: int, side: int) -> np.ndarray:
    return np.random.default_rng(1).random((number, side, side, 3), np.float32)


def backbone_cases(size: Sizes) -> Iterator[Case]:
    for name in ("resnet18", "wide_resnet50_2", "dinov2_vits14"):
        layers = ("norm",) if name in VITS else (*LAYERS, "layer4")
        backbone, variables, tensors = network(name, layers)
        for precision in PRECISIONS:
            forward = Detector(None, (), lambda _, frozen, image: backbone.features(frozen, image, layers))  # noqa: B023
            program = jax.jit(mixed_precision(forward, precision).predict)
            for batch in size.batches:
                host = images(batch, size.vit_side if name in VITS else size.side)
                image = jnp.asarray(host)

                def theirs(module, wrap, host=host, precision=precision):
                    if name in VITS:  # noqa: B023
                        return module.vit(tensors, host, VITS[name], precision, wrap)  # noqa: B023
                    return module.resnet(tensors, host, *backbones.SPECS[name][:2], layers, precision, wrap)  # noqa: B023

                yield Case(
                    f"{name} {precision}, batch {batch}",
                    functools.partial(program, None, variables, image),
                    theirs,
                    flops(program, None, variables, image),
                    "FLOP",
                    "cost analysis",
                    precision,
                    precise() if precision == "float32" else 0.06,
                    batch,
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


def training_case(size: Sizes, name: str) -> Iterator[Case]:
    backbone, frozen, tensors = network("resnet18", LAYERS)
    detector = detectors.factory(name)(backbone, layers=LAYERS)
    number, host = size.train_batch, images(size.train_batch, size.side)
    batch = Batch(jnp.asarray(host), *(jnp.zeros(number, jnp.int32) for _ in range(4)), jnp.ones(number, bool))
    spec = DataSpec(number, host.shape[1:], ("a",))
    state = jax.jit(lambda key, frozen: detector.init(key, frozen, spec))(KEY, {"backbone": frozen})
    state = state._replace(variables=shaken(state.variables))
    theirs = torch_tensors(state.variables)
    arguments = KEY, state, {"backbone": frozen}, batch
    program = jax.jit(detector.phases[0].update, donate_argnums=1)
    work = flops(program, *arguments)
    params = jax.eval_shape(lambda: state.variables["params"])
    held = [state]

    def ours():
        held[0], info = program(KEY, held[0], {"backbone": frozen}, batch)
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
    frozen = {"backbone": frozen}
    detector = detectors.factory("patchcore")(backbone)
    number = -(-size.bank // (size.side // 8) ** 2)
    batch = Batch(images(number, size.side), *[np.zeros(number, np.int32)] * 4, np.ones(number, bool))
    state = detector.init(KEY, frozen, DataSpec(number, batch.image.shape[1:], ("a",)))
    state, _ = jax.jit(detector.phases[0].update)(KEY, state, frozen, batch)
    bank = np.asarray(state.features[: size.bank])
    state = state._replace(features=ops.take_rows(state.features, jnp.arange(size.bank, dtype=jnp.int32)))
    image = np.random.default_rng(2).random((1, size.side, size.side, 3), np.float32)
    program = jax.jit(detector.predict)
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


def fastest(sides: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Seconds of a call in the fastest round of each side."""
    repeats, best = {}, dict.fromkeys(sides, float("inf"))
    for name, side in sides.items():
        began = time.perf_counter()
        side()
        repeats[name] = max(1, int(ROUND_SECONDS / (time.perf_counter() - began)))
    for _ in range(rounds):
        for name, side in sides.items():
            if repeats[name] > 1:
                # threads of the other side may still be spinning
                side()
            began = time.perf_counter()
            for _ in range(repeats[name]):
                side()
            best[name] = min(best[name], (time.perf_counter() - began) / repeats[name])
    return best


def ceilings(size: Sizes) -> dict[str, float]:
    """FLOP/s of a large matrix product in each precision, and B/s of reading and writing a large array."""
    found = {}
    for name, dtype, precision in (
        ("float32", "float32", None),
        ("float32 highest", "float32", "highest"),
        ("bfloat16", "bfloat16", None),
    ):
        matrix = jax.random.normal(KEY, (size.matrix, size.matrix)).astype(dtype)
        product = jax.jit(functools.partial(jnp.matmul, precision=precision))
        seconds = fastest({name: lambda matrix=matrix, product=product: product(matrix, matrix).block_until_ready()}, 5)
        found[name] = 2 * size.matrix**3 / seconds[name]
    # in place: mapping new memory is not copying
    negative = jax.jit(jnp.negative, donate_argnums=0)
    held = [jnp.zeros(size.copied // 4)]

    def copy():
        held[0] = negative(held[0]).block_until_ready()

    found["copy"] = 2 * size.copied / fastest({"copy": copy}, 5)["copy"]
    return found


def measure(case: Case, ceiling: Mapping[str, float], torch_forms: Any) -> dict[str, Any]:
    """The row of a case."""

    def ours():
        return jax.block_until_ready(case.ours())

    sides = {"iadjax": ours}
    if torch_forms:
        wraps = {"pytorch": lambda function: function}
        if torch_forms.DEVICE.type == "cuda":
            wraps["pytorch_compiled"] = torch_forms.torch.compile
        for name, wrap in wraps.items():
            call = case.theirs(torch_forms, wrap)
            sides[name] = lambda call=call: torch_forms.ready(call())
    first, outputs = {}, {}
    for name, side in sides.items():
        began = time.perf_counter()
        out = side()
        first[name] = time.perf_counter() - began
        outputs[name] = jax.device_get(out) if name == "iadjax" else torch_forms.host(out)
    differ = case.difference or largest_difference
    differences = {name: differ(outputs["iadjax"], out) for name, out in outputs.items() if name != "iadjax"}
    agree = all(each <= case.tolerance for each in differences.values())
    seconds = fastest(sides, _ROUNDS.value)
    achieved = case.work / seconds["iadjax"]
    return {
        "stage": case.name,
        "seconds": seconds,
        "first_call_seconds": first,
        "images": case.images,
        "ratio": min(seconds[name] for name in differences) / seconds["iadjax"] if differences and agree else None,
        "agree": agree if differences else None,
        "difference": differences,
        "tolerance": case.tolerance,
        "work": case.work,
        "unit": case.unit,
        "source": case.source,
        "achieved_per_second": achieved,
        "ceiling": case.ceiling,
        "ceiling_per_second": ceiling[case.ceiling],
        "share": achieved / ceiling[case.ceiling],
    }


def best_batches(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For rows that differ in the batch alone: a row with the most images per second of each side, in seconds of an image."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["stage"].rpartition(", batch ")[0], []).append(row)
    found = []
    for name, group in groups.items():
        chosen = {side: min(group, key=lambda row: row["seconds"][side] / row["images"]) for side in group[0]["seconds"]}
        seconds = {side: row["seconds"][side] / row["images"] for side, row in chosen.items()}
        agree = None if group[0]["agree"] is None else all(row["agree"] for row in group)
        theirs = [value for side, value in seconds.items() if side != "iadjax"]
        found.append(
            chosen["iadjax"]
            | {
                "stage": f"{name}, an image of the best batch ({chosen['iadjax']['images']})",
                "seconds": seconds,
                "images": 1,
                "batches": {side: row["images"] for side, row in chosen.items()},
                "ratio": min(theirs) / seconds["iadjax"] if agree else None,
                "agree": agree,
            }
        )
    return found


def show(row: dict[str, Any]) -> None:
    theirs = min((value for side, value in row["seconds"].items() if side != "iadjax"), default=None)
    cells = [
        f"{row['stage']:56}",
        f"{1000 * row['seconds']['iadjax']:10.2f}",
        f"{'' if theirs is None else f'{1000 * theirs:.2f}':>10}",
        f"{'differ' if row['agree'] is False else '' if row['ratio'] is None else format(row['ratio'], '.2f'):>7}",
        f"{row['achieved_per_second'] / 1e9:10.2f} G{row['unit']}/s of {row['ceiling_per_second'] / 1e9:.1f}",
        f"{row['share']:6.1%}",
    ]
    print(" ".join(cells), flush=True)


def torch_side() -> tuple[Any, str]:
    """The module with PyTorch's forms, or None and why."""
    if not importlib.util.find_spec("torch"):
        return None, "not installed"
    forms = importlib.import_module("device_torch")
    here = {"cpu": "cpu", "gpu": "cuda"}.get(jax.default_backend())
    if forms.DEVICE.type != here:
        return None, f"{forms.torch.__version__} sees {forms.DEVICE.type}, not the {jax.default_backend()} that JAX uses"
    forms.torch.set_num_threads(threads())
    return forms, forms.torch.__version__


def threads() -> int:
    """Cores that this process may use; XLA starts as many threads."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def main() -> None:
    names = _STAGES.value or list(CASES)
    for name in names:
        if name not in CASES:
            raise UserError(f"--stages has no stage {name!r}; {did_you_mean(name, CASES)}")
    # both libraries share an accelerator, and a stored program would hide what compiling takes
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_enable_compilation_cache", False)
    size = SMALL if _SMALL.value else CPU if jax.default_backend() == "cpu" else ACCELERATOR
    forms, version = torch_side()
    device = jax.devices()[0]
    print(
        f"{device.device_kind}, {threads()} cores, JAX {jax.__version__}, PyTorch {version}; fastest of {_ROUNDS.value} rounds"
    )
    ceiling = ceilings(size)
    print("; ".join(f"{name} {value / 1e9:.1f} G{'B' if name == 'copy' else 'FLOP'}/s" for name, value in ceiling.items()))
    print(f"{'stage':56} {'iadjax ms':>10} {'PyTorch ms':>10} {'ratio':>7} {'achieved':>16}, ceiling, share")
    rows = []
    for name in names:
        found = []
        for case in CASES[name](size):
            found.append(measure(case, ceiling, forms))
            show(found[-1])
        best = best_batches(found) if name == "backbone" else []
        for row in best:
            show(row)
        rows += found + best
    if _JSON.value:
        about = {
            "date": datetime.date.today().isoformat(),
            "device": {"kind": device.device_kind, "platform": device.platform, "threads": threads()},
            "versions": record.versions() | {"torch": version},
            "rounds": _ROUNDS.value,
            "small": _SMALL.value,
            "counted": "fastest round of each side; rounds alternate",
        }
        files.write_json(Path(_JSON.value), {**about, "ceilings_per_second": ceiling, "stages": rows})
    if any(row["agree"] is False for row in rows):
        print("error: outputs of iadjax and PyTorch differ where the table says so", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
