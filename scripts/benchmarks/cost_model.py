"""The cost model of docs/scaling.md against what XLA counts and what the processor takes, at three sizes.

JAX_NUM_CPU_DEVICES=8 python scripts/benchmarks/cost_model.py                # a minute; on one device without the variable

XLA counts the body of a loop once, so the operations of the search are those of its form in one tile.
"""

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from iadjax import ops
from iadjax.cpu.dispatch import plain
from iadjax.experiment import cli
from iadjax.parallel import placement

_QUERIES = flags.DEFINE_integer("queries", 1024, "Patches of a batch, B P.")
_DEPTH = flags.DEFINE_integer("depth", 256, "Numbers per patch, D.")
_ROWS = flags.DEFINE_list("rows", ["8192", "16384", "32768"], "Rows of the bank, M.")


def main() -> None:
    devices = placement.all_devices()
    count, queries, depth = devices.count, _QUERIES.value, _DEPTH.value
    search, in_one_tile = ops.nearest_neighbors, functools.partial(ops.nearest_neighbors, byte_budget=2**40)
    rng = np.random.default_rng(0)
    query = rng.standard_normal((queries, depth)).astype(np.float32)
    print(f"{count} devices, {queries} queries of {depth} numbers; k-NN, then one pass of the coreset with 512 centres")
    print(f"{'':7} {'rows':>6} {'GFLOP model':>12} {'XLA':>8} {'MB model':>9} {'XLA':>8} {'CPU-ms':>8} {'GFLOP/CPU-s':>12}")
    for rows in map(int, _ROWS.value):
        bank = rng.standard_normal((rows, depth)).astype(np.float32)
        with placement.use(devices):
            split = placement.put_rows(devices, bank)
            batch = placement.put_rows(devices, query)
            for name, program, counted, arguments, work, held in (
                # per device: every query against its part; its part and its queries
                ("k-NN", search, in_one_tile, (batch, split), 2 * queries * rows * depth, rows + queries),
                # its part against the centres, which are gathered
                ("coreset", _pass, None, (split,), 2 * 512 * rows * depth + count * 2 * 512**2 * depth, rows),
            ):
                compiled = jax.jit(program).lower(*arguments).compile()
                with plain():
                    whole = jax.jit(counted).lower(*arguments).compile() if counted else compiled
                jax.block_until_ready(compiled(*arguments))
                began = time.process_time()
                for _ in range(3):
                    jax.block_until_ready(compiled(*arguments))
                seconds = (time.process_time() - began) / 3
                flops, memory = whole.cost_analysis()["flops"], compiled.memory_analysis()
                print(
                    f"{name:7} {rows:6d} {work / count / 1e9:12.3f} {flops / 1e9:8.3f} {4 * depth * held / count / 1e6:9.2f} "
                    f"{memory.argument_size_in_bytes / 1e6:8.2f} {1e3 * seconds:8.1f} {work / seconds / 1e9:12.1f}",
                    flush=True,
                )


def _pass(points: jax.Array) -> jax.Array:
    """One pass of `k_center_greedy`: distances to 512 new centres, the 512 farthest points and those among them."""
    from iadjax.ops import coreset

    squares = jnp.sum(points**2, axis=1)
    distances = jnp.full(len(points), jnp.inf)
    return coreset._update(points, squares, distances, np.arange(512, dtype=np.int32), 512, 512)[3]


if __name__ == "__main__":
    cli.run(main)
