"""What a bank under a byte budget loses: covering radius and scores against the bank that saw everything at once.

python scripts/benchmarks/bank.py                              # prints a table; minutes on two cores
"""

import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from absl import flags

import iadjax
from iadjax import ops
from iadjax.config import base_config
from iadjax.detectors.families.memory_bank import capacity
from iadjax.experiment import cli

_CATEGORY = flags.DEFINE_string("category", "fabric", "Category of the synthetic set.")
_SIZE = flags.DEFINE_integer("size", 128, "Side of the images.")
_RATIO = flags.DEFINE_float("ratio", 0.01, "Share of the patches that the coreset keeps.")
_PARTS = flags.DEFINE_list("parts", ["2", "4", "8"], "Budgets: this part of what all patches would take.")


def main() -> None:
    config = base_config("patchcore", "synthetic")
    config.data.update({"category": _CATEGORY.value, "resize": _SIZE.value})
    config.detector.coreset_ratio = _RATIO.value
    config.threshold.holdout = 0.0
    config.evaluate.pixel = False
    with tempfile.TemporaryDirectory() as folder:

        def fitted(name, ratio, bank_bytes):
            config.detector.update({"coreset_ratio": ratio, "bank_bytes": bank_bytes})
            began = time.perf_counter()
            run = iadjax.fit(config, Path(folder) / name)
            return run, time.perf_counter() - began

        whole, _ = fitted("whole", 1.0, 0)
        patches = whole.state.features[: int(whole.state.rows)]
        number, depth = patches.shape

        def report(name, run, seconds):
            bank = run.state.features[: int(run.state.rows)]
            distance = np.asarray(jax.jit(lambda q, b: ops.nearest_neighbors(q, b, 1)[0])(patches, bank))
            auroc = iadjax.evaluate(run)["mean"]["image_auroc"]
            print(
                f"{name:>12} {len(bank):6d} {distance.max():9.4f} {distance.mean():9.4f} {auroc:8.4f} {seconds:8.1f}",
                flush=True,
            )
            return distance.max()

        print(f"{number} patches of {depth} numbers")
        print(f"{'rows':>12} {'bank':>6} {'radius':>9} {'mean':>9} {'AUROC':>8} {'seconds':>8}")
        best = report("all", *fitted("one", _RATIO.value, 0))
        # the floor: another start of the same greedy choice
        config.seed = 1
        report("other seed", *fitted("other", _RATIO.value, 0))
        config.seed = 0
        per_row = 2**30 / capacity(2**30, depth)
        for part in _PARTS.value:
            budget = int(number / int(part) * per_row)
            run, seconds = fitted(f"part{part}", _RATIO.value, budget)
            radius = report(str(capacity(budget, depth)), run, seconds)
            print(f"{'':>12} ratio {radius / best:.3f}")


if __name__ == "__main__":
    cli.run(main)
