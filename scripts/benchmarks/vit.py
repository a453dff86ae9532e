"""Times DINOv2's vision transformers at 518 px beside plain PyTorch with scaled_dot_product_attention, in one run.

    python scripts/benchmarks/vit.py [--rounds=5] [--json=results/vit_cpu.json]

Needs torch. Random weights; the same images, weights and threads on both sides, whose outputs are compared. bfloat16 is
PyTorch's autocast, and ours rounds the products of linear layers. `ratio`: PyTorch's seconds over ours; rounds alternate, and
the fastest round of each side counts.
"""

import importlib
import importlib.util
import itertools
from pathlib import Path

import jax
import numpy as np
from absl import flags
from device_cases import CPU, largest_difference
from device_networks import backbone_cases
from timing import fastest

from iadjax import files
from iadjax.errors import UserError
from iadjax.experiment import cli, record

_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds per measurement.", lower_bound=1)
_JSON = flags.DEFINE_string("json", None, "File for the figures.")

NAMES, SIDE, BATCHES = ("dinov2_vits14", "dinov2_vitb14"), 518, (1, 4)


def main() -> None:
    if importlib.util.find_spec("torch") is None:
        raise UserError("this benchmark compares with PyTorch, which is not installed; pip install torch")
    module, rows = importlib.import_module("device_torch"), []
    size = CPU._replace(vit_side=SIDE, batches=BATCHES)
    for case in itertools.chain.from_iterable(backbone_cases(size, name) for name in NAMES):
        sides = {
            "ours": lambda case=case: jax.block_until_ready(case.ours()),
            "pytorch": case.theirs(module, lambda network: network),
        }
        difference = largest_difference(jax.tree.map(np.asarray, list(sides["ours"]())), module.host(sides["pytorch"]()))
        if difference > case.tolerance:
            raise RuntimeError(f"{case.name}: the two sides differ by {difference:.1e} of the largest value")
        seconds = fastest(sides, _ROUNDS.value)
        ratio = seconds["pytorch"] / seconds["ours"]
        rows.append({"case": f"{case.name}, {SIDE} px", "seconds": seconds, "ratio": ratio, "difference": difference})
        print(f"{case.name}: {seconds['ours']:.3f} s, PyTorch {seconds['pytorch']:.3f} s, ratio {ratio:.2f}", flush=True)
    if _JSON.value:
        files.write_json(Path(_JSON.value), {**record.about(), "rows": rows})


if __name__ == "__main__":
    cli.run(main)
