"""Times what detectors are made of on any device, against the ceilings of that device and against plain PyTorch.

    python scripts/benchmarks/device.py --json=results/device_cpu.json
    python scripts/benchmarks/device.py --stages=knn,coreset,rd4ad [--rounds=5] [--small]

Ceilings are measured in the same run: a large matrix product in the stage's precision, and reading and writing a large array.
Where PyTorch is installed and sees the same device it runs the same stages (`device_torch*.py`) with the same number of
threads. On CUDA it runs them compiled by `torch.compile` as well (`--notorch_compile`: not). A stage whose outputs differ
gets no ratio, and the script ends with status 1. In bfloat16 PyTorch runs by autocast, with float32 weights as usual and with
weights that are rounded before, as frozen ones are here; a ratio is to the fastest form. Rounds alternate between the sides;
the fastest round of each counts. The first call, which compiles, is not among them; the JSON file has it. Weights are random:
only speed is measured. Work is counted in FLOPs, by XLA's cost analysis of the program before it is optimised (the same on
every device) or by a formula (k-NN: 2QND; coreset: 2 N D for each pick), or in bytes that at least must move: every input
read once, every output written once.
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
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from device_cases import ACCELERATOR, CPU, SMALL, Case, Sizes, largest_difference
from device_networks import backbone_cases, cfa_cases, patchcore_cases, training_case
from device_ops import aupro_cases, blur_cases, coreset_cases, knn_cases
from timing import fastest

from iadjax import UserError, files
from iadjax.errors import did_you_mean
from iadjax.experiment import cli, record

BACKBONES = ("resnet18", "wide_resnet50_2", "dinov2_vits14")
CASES: Mapping[str, Callable[[Sizes], Iterator[Case]]] = {
    **{name: functools.partial(backbone_cases, name=name) for name in BACKBONES},
    "knn": knn_cases,
    "coreset": coreset_cases,
    "blur": blur_cases,
    "aupro": aupro_cases,
    "rd4ad": functools.partial(training_case, name="rd4ad"),
    "fastflow": functools.partial(training_case, name="fastflow"),
    "stpm": functools.partial(training_case, name="stpm"),
    "cfa": cfa_cases,
    "patchcore": patchcore_cases,
}

_STAGES = flags.DEFINE_list("stages", [], "Stages to run; all by default.")
_SMALL = flags.DEFINE_bool("small", False, "Tiny sizes: whether it runs, not how fast.")
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds per measurement.", lower_bound=1)
_TORCH_COMPILE = flags.DEFINE_boolean("torch_compile", True, "On CUDA also PyTorch's stages compiled by torch.compile.")
_JSON = flags.DEFINE_string("json", None, "File for the figures.")


def ceilings(size: Sizes) -> dict[str, float]:
    """FLOP/s of a large matrix product in each precision, and B/s of reading and writing a large array."""
    found = {}
    for name, dtype, precision in (
        ("float32", "float32", None),
        ("float32 highest", "float32", "highest"),
        ("bfloat16", "bfloat16", None),
    ):
        matrix = jax.random.normal(jax.random.key(0), (size.matrix, size.matrix)).astype(dtype)
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
        if torch_forms.DEVICE.type == "cuda" and _TORCH_COMPILE.value:
            wraps["pytorch_compiled"] = torch_forms.torch.compile
        for name, wrap in wraps.items():
            for form, theirs in ((name, case.theirs), (f"{name}_rounded_weights", case.theirs_rounded)):
                if theirs:
                    call = theirs(torch_forms, wrap)
                    sides[form] = lambda call=call: torch_forms.ready(call())
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
        f"{device.device_kind} ({record.processor()}), {threads()} cores, JAX {jax.__version__}, PyTorch {version}; "
        f"fastest of {_ROUNDS.value} rounds"
    )
    ceiling = ceilings(size)
    print("; ".join(f"{name} {value / 1e9:.1f} G{'B' if name == 'copy' else 'FLOP'}/s" for name, value in ceiling.items()))
    print(f"{'stage':56} {'iadjax ms':>10} {'PyTorch ms':>10} {'ratio':>7} {'achieved':>16}, ceiling, share")
    about = {
        "date": datetime.date.today().isoformat(),
        "device": {"kind": device.device_kind, "platform": device.platform, "threads": threads()},
        "processor": record.processor(),
        "versions": record.versions() | {"torch": version},
        "rounds": _ROUNDS.value,
        "small": _SMALL.value,
        "counted": "fastest round of each side; rounds alternate",
        "ceilings_per_second": ceiling,
    }
    rows = []
    for name in names:
        found = []
        for case in CASES[name](size):
            found.append(measure(case, ceiling, forms))
            show(found[-1])
        best = best_batches(found) if name in BACKBONES else []
        for row in best:
            show(row)
        rows += found + best
        if _JSON.value:
            # after each stage: what an accelerator was lent for is not lost
            files.write_json(Path(_JSON.value), {**about, "stages": rows})
    if any(row["agree"] is False for row in rows):
        print("error: outputs of iadjax and PyTorch differ where the table says so", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    cli.run(main)
