"""The cost model of docs/scaling.md against what XLA counts and what the processor takes, at three sizes.

JAX_NUM_CPU_DEVICES=8 python scripts/cost_model.py                # a minute; on one device without the variable

XLA counts the body of a loop once, so the operations of the search are those of its form in one tile.
"""

import functools
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from iadjax import cli, ops, sharding
from iadjax.platforms import plain

_QUERIES = flags.DEFINE_integer("queries", 1024, "Patches of a batch, B P.")
_DEPTH = flags.DEFINE_integer("depth", 256, "Numbers per patch, D.")
_ROWS = flags.DEFINE_list("rows", ["8192", "16384", "32768"], "Rows of the bank, M.")


def main() -> None:
    devices = sharding.all_devices()
    count, queries, depth = devices.count, _QUERIES.value, _DEPTH.value
    rng = np.random.default_rng(0)
    query = rng.standard_normal((queries, depth)).astype(np.float32)
    print(f"{count} devices, {queries} queries of {depth} numbers; k-NN, then one pass of the coreset with 512 centres")
    print(f"{'':7} {'rows':>6} {'GFLOP model':>12} {'XLA':>8} {'MB model':>9} {'XLA':>8} {'CPU-ms':>8} {'GFLOP/CPU-s':>12}")
    for rows in map(int, _ROWS.value):
        bank = rng.standard_normal((rows, depth)).astype(np.float32)
        with sharding.use(devices):
            split = sharding.put_rows(devices, bank)
            batch = sharding.put_rows(devices, query)
            for name, program, arguments, work, held in (
                # per device: every query against its part; its part and its queries
                ("k-NN", ops.nearest_neighbors, (batch, split), 2 * queries * rows * depth, rows + queries),
                # its part against the centres, which are gathered
                ("coreset", _pass, (split,), 2 * 512 * rows * depth + count * 2 * 512**2 * depth, rows),
            ):
                compiled, whole = jax.jit(program).lower(*arguments).compile(), compiled_in_one_tile(program, arguments)
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


def compiled_in_one_tile(program: Callable, arguments: Sequence[jax.Array]) -> jax.stages.Compiled:
    """The search without its loop; any other program as it is."""
    whole = functools.partial(program, byte_budget=2**40) if program is ops.nearest_neighbors else program
    with plain():
        return jax.jit(whole).lower(*arguments).compile()


def _pass(points: jax.Array) -> jax.Array:
    """One pass of `k_center_greedy`: distances to 512 new centres, the 512 farthest points and those among them."""
    from iadjax.ops import coreset

    squares = jnp.sum(points**2, axis=1)
    distances = jnp.full(len(points), jnp.inf)
    return coreset._update(points, squares, distances, np.arange(512, dtype=np.int32), 512, 512)[3]


if __name__ == "__main__":
    cli.run(main)
