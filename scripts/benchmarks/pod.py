"""Compiles programs for TPU slices with the compiler of TPUs, without a TPU, and compares its counts with docs/scaling.md.

    pip install "iadjax[pod]"
    python scripts/benchmarks/pod.py                                                     # long, and resumable
    python scripts/benchmarks/pod.py --topologies=v5e:4x4 --only=knn,rd4ad

Each program is compiled as the driver compiles it, for the topology of a slice. Operations, bytes and collectives are the
compiler's, of one chip. Nothing is run, so there are no times but those of compiling. Rows in the JSON file are not made again.
"""

import os

# before JAX is imported: the library of TPUs must not look for any
os.environ.update(
    JAX_PLATFORMS="cpu", TPU_SKIP_MDS_QUERY="1", TPU_ACCELERATOR_TYPE="v5litepod-16", TPU_WORKER_HOSTNAMES="localhost"
)
# and what it compiled cannot be read back without one
os.environ.update(JAX_ENABLE_COMPILATION_CACHE="false", ALLOW_MULTIPLE_LIBTPU_LOAD="1")

import importlib.metadata
import importlib.util
import json
import re
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh
from pod_cases import CASES, HBM, Program

from iadjax import files, progress
from iadjax.cpu.dispatch import plain
from iadjax.errors import UserError
from iadjax.experiment import cli, record
from iadjax.parallel.axis import AXIS
from iadjax.parallel.placement import Devices

_TOPOLOGIES = flags.DEFINE_list("topologies", ["v5e:4x4", "v5e:16x16", "v5p:8x8x8"], "Slices to compile for.")
_ONLY = flags.DEFINE_list("only", [], f"Programs of {', '.join(CASES)}; all by default.")
_JSON = flags.DEFINE_string("json", "results/pod_tpu.json", "File for the figures; empty for none.")
_PAGE = flags.DEFINE_string("page", "docs/scaling.md", "File whose table between the marks is replaced; empty for none.")

COLLECTIVE = re.compile(r" = (.*?) (all-gather|all-reduce|reduce-scatter|collective-permute|all-to-all)(-start)?\(")
ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")


def slice_of(name: str) -> tuple[Devices, int]:
    """The devices of a slice that is not here, and the bytes of one.

    Raises:
      UserError: no library of TPUs, a name that it does not know, or a chip whose memory is not in `HBM`.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise UserError('the compiler of TPUs is not installed; pip install "iadjax[pod]"')
    try:
        found = topologies.get_topology_desc(name, platform="tpu").devices
    except jax.errors.JaxRuntimeError as error:
        raise UserError(f"libtpu does not describe the slice {name}: {str(error).splitlines()[0]}") from error
    kind = found[0].device_kind
    if kind not in HBM:
        raise UserError(f"the chips of {name} are {kind!r}, whose memory is not known here; known are {', '.join(HBM)}")
    return Devices(Mesh(np.array(found), (AXIS,), axis_types=(AxisType.Auto,))), HBM[kind]


def collectives(text: str) -> dict[str, int]:
    """Bytes that each kind of collective leaves on one chip, from the compiled program; the body of a loop counts once."""
    found: dict[str, int] = {}
    for shapes, kind, asynchronous in COLLECTIVE.findall(text):
        sizes = [_size(*each) for each in ARRAY.findall(shapes)]
        # an asynchronous one gives its operand and its result
        found[kind] = found.get(kind, 0) + (max(sizes) if asynchronous else sum(sizes))
    return found


def _size(dtype: str, shape: str) -> int:
    bits = int(re.sub(r"\D", "", dtype) or 8)
    return int(np.prod([int(side) for side in shape.split(",") if side], dtype=np.int64)) * bits // 8


def compiled(devices: Devices, function: Any, arguments: tuple[Any, ...]) -> Any:
    """The program for all chips; `plain`, because the backend here is a CPU."""
    with plain(loops=True), jax.sharding.use_abstract_mesh(devices.mesh.abstract_mesh):
        return function.lower(*arguments).compile()


def operations(devices: Devices, program: Program, whole: Any) -> tuple[float, float]:
    """Of one chip: by the compiler, and by the model."""
    if program.counted is None:
        return whole.cost_analysis()["flops"], program.operations
    function, arguments, model = program.counted
    # what one step of the loop takes, as often as the model has it
    return compiled(devices, function, arguments).cost_analysis()["flops"] * program.operations / model, program.operations


def measure(name: str, devices: Devices, memory: int) -> dict[str, Any]:
    """One row."""
    program = CASES[name].program(devices, memory)
    began = time.perf_counter()
    whole = compiled(devices, program.function, program.arguments)
    seconds = time.perf_counter() - began
    compiler, model = operations(devices, program, whole)
    held = whole.memory_analysis()
    return {
        "size": program.size,
        "compile_seconds": round(seconds, 1),
        "gflop": {"model": round(model / 1e9, 3), "compiler": round(compiler / 1e9, 3)},
        "argument_mb": {
            "model": round(program.arguments_bytes / 1e6, 3),
            "compiler": round(held.argument_size_in_bytes / 1e6, 3),
        },
        "temporary_mb": round(held.temp_size_in_bytes / 1e6, 3),
        "accessed_mb": round(whole.cost_analysis()["bytes accessed"] / 1e6, 1),
        "fits": held.argument_size_in_bytes - held.alias_size_in_bytes + held.output_size_in_bytes + held.temp_size_in_bytes
        < memory,
        "sent_mb": round(program.sent / 1e6, 3),
        "collectives_mb": {kind: round(size / 1e6, 3) for kind, size in sorted(collectives(whole.as_text()).items())},
    }


def main() -> None:
    names = _ONLY.value or list(CASES)
    for name in names:
        if name not in CASES:
            raise UserError(f"--only={name}: the programs are {', '.join(CASES)}")
    path = Path(_JSON.value)
    table = json.loads(path.read_text(encoding="utf-8")) if _JSON.value and path.is_file() else {"slices": {}}
    for topology in _TOPOLOGIES.value:
        devices, memory = slice_of(topology)
        rows = table["slices"].setdefault(topology, {})
        for name in names:
            if name in rows:
                continue
            progress.say(f"{name} for {topology}")
            rows[name] = measure(name, devices, memory)
            print(topology, name, json.dumps(rows[name]), flush=True)
            if _JSON.value:
                table["about"] = {**record.about(), "libtpu": importlib.metadata.version("libtpu")}
                files.write_json(path, table)
    if _PAGE.value and _JSON.value:
        page = Path(_PAGE.value)
        files.write_text(page, files.between_marks(page.read_text(encoding="utf-8"), "slices", text(table)))


def text(table: dict[str, Any]) -> str:
    """The table of docs/scaling.md."""
    lines = []
    for topology, rows in table["slices"].items():
        lines += [
            f"\n**{topology}**, {int(np.prod([int(n) for n in topology.split(':')[1].split('x')]))} chips\n",
            "| program | size | GFLOP, model | compiler | MB of arguments, model | compiler | MB beside | MB sent, model "
            "| collectives, MB | compiling s |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for name, row in sorted(rows.items(), key=lambda item: list(CASES).index(item[0])):
            sent = ", ".join(f"{kind} {size:,.1f}" for kind, size in row["collectives_mb"].items()) or "–"
            lines.append(
                f"| {CASES[name].stage} | {row['size']} | {row['gflop']['model']:,.1f} | {row['gflop']['compiler']:,.1f} "
                f"| {row['argument_mb']['model']:,.1f} | {row['argument_mb']['compiler']:,.1f} | {row['temporary_mb']:,.1f} "
                f"| {row['sent_mb']:,.1f} | {sent} | {row['compile_seconds']:.0f} |"
            )
    return "\n".join(lines) + "\n\n"


if __name__ == "__main__":
    cli.run(main)
