"""PatchCore on MTD-300 from process start to scores, against the same job in plain PyTorch; both as whole processes.

    python scripts/benchmarks/patchcore.py --root=MTD --weights=resnet18.safetensors [--rounds=3] [--json=FILE]

The iadjax side also writes a checkpoint (with the whole bank before the coreset); both read, fit, build the coreset and
score the 200 test images. Sides alternate; the fastest round of each counts.
"""

import datetime
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

_ROOT = flags.DEFINE_string("root", None, "Folder of MTD.", required=True)
_WEIGHTS = flags.DEFINE_string("weights", None, "ResNet-18 weights, safetensors.", required=True)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Rounds per side.")
_JSON = flags.DEFINE_string("json", None, "File to write the results to.")

_OURS = """
import sys, iadjax
from iadjax.config import load_config
config = load_config(sys.argv[1])
config.data.root, config.backbone.weights, config.threshold.holdout = sys.argv[2], sys.argv[3], 0.0
run = iadjax.fit(config, sys.argv[4])
rows = list(run.predict_items(run.data.split.test))
print("image_auroc %.4f" % iadjax.metrics.auroc([score for _, score, _ in rows], [item.label for item, _, _ in rows]))
"""


def main(_) -> None:
    here = Path(__file__).parent
    config = here.parents[1] / "configs/unsupervised/patchcore.py:mtd_300"
    seconds, printed = {"iadjax": [], "PyTorch": []}, {}
    for _ in range(_ROUNDS.value):
        with tempfile.TemporaryDirectory() as temporary:
            commands = {
                "iadjax": ["-c", _OURS, str(config), _ROOT.value, _WEIGHTS.value, f"{temporary}/run"],
                "PyTorch": [str(here / "patchcore_torch.py"), _ROOT.value, _WEIGHTS.value],
            }
            for side, command in commands.items():
                began = time.perf_counter()
                done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
                seconds[side].append(time.perf_counter() - began)
                printed[side] = done.stdout.strip()
                print(f"{side}: {seconds[side][-1]:.1f} s, {printed[side]}", flush=True)
    ratio = min(seconds["PyTorch"]) / min(seconds["iadjax"])
    print(f"PyTorch takes {ratio:.2f} times as long")
    if _JSON.value:
        versions = {name: importlib.metadata.version(name) for name in ("jax", "flax", "numpy", "torch")}
        about = {"date": datetime.date.today().isoformat(), "cpu_count": os.cpu_count(), "versions": versions}
        Path(_JSON.value).parent.mkdir(parents=True, exist_ok=True)
        result = {**about, "seconds": seconds, "printed": printed, "ratio": ratio}
        Path(_JSON.value).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app.run(main)
