"""The fit of MH-PatchCore on 200 images, against the same three passes in plain PyTorch; both as whole processes.

    python scripts/benchmarks/mh_patchcore.py --json=results/mh_patchcore_cpu.json     # ten minutes on two cores
    python scripts/benchmarks/mh_patchcore.py --images=32 --rounds=1

Images are drawn (synthetic wood, enlarged to 256 pixels; 224 are cropped), weights of Wide ResNet-50-2 are random and the same
on both sides. Seconds are those of a process from its start: imports, compilation, decoding, and here also the checkpoint. In
brackets stand the seconds of the fit alone. Sides alternate; the fastest round of each counts. CPU-seconds stand beside them,
because other work on the machine does not change those.
"""

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image
from safetensors.numpy import save_file

from iadjax import data, files
from iadjax.experiment import cli, record

_IMAGES = flags.DEFINE_integer("images", 200, "Training images.")
_ROUNDS = flags.DEFINE_integer("rounds", 1, "Rounds per side.")
_JSON = flags.DEFINE_string("json", "", "File for the figures.")

_OURS = """
import sys, time
began = time.perf_counter()
import iadjax
from iadjax.config import load_config
config = load_config("unsupervised/mh_patchcore.py:folder")
config.data.update({"normal": sys.argv[1], "test_fraction": 0.0, "batch_size": 8})
config.backbone.weights, config.threshold.holdout = sys.argv[2], 0.0
fitting = time.perf_counter()
run = iadjax.fit(config, sys.argv[3])
shape = run.state.whitening.shape[1], len(run.state.bank)
print("%.2f s: %d axes, %d patches" % (time.perf_counter() - fitting, *shape))
"""


def draw(folder: Path, number: int) -> None:
    """PNG files of 256 x 256 pixels: parts of synthetic images at different places and angles."""
    folder.mkdir()
    found = data.load("synthetic", category="wood")
    rng = np.random.default_rng(0)
    for i in range(number):
        picture = Image.fromarray(found.read(found.train[i % len(found.train)])[0])
        left, top = rng.uniform(0, 0.2, 2) * picture.width
        box = (left, top, left + 0.8 * picture.width, top + 0.8 * picture.height)
        picture.resize((256, 256), Image.Resampling.BICUBIC, box).save(folder / f"{i:03d}.png")


def cpu_seconds() -> float:
    """CPU-seconds of all processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def random_weights() -> dict[str, np.ndarray]:
    """Wide ResNet-50-2 up to layer3, by torchvision's names."""
    rng, found = np.random.default_rng(0), {}

    def add(conv, norm, outputs, inputs, side):
        scale = (2 / (outputs * side**2)) ** 0.5
        found[f"{conv}.weight"] = (scale * rng.standard_normal((outputs, inputs, side, side))).astype(np.float32)
        for key, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            found[f"{norm}.{key}"] = np.full(outputs, value, np.float32)

    add("conv1", "bn1", 64, 3, 7)
    inputs = 64
    for stage, blocks in ((1, 3), (2, 4), (3, 6)):
        width = 128 * 2 ** (stage - 1)
        for i in range(blocks):
            name = f"layer{stage}.{i}"
            for number, (outs, ins, side) in enumerate(((width, inputs, 1), (width, width, 3), (2 * width, width, 1)), 1):
                add(f"{name}.conv{number}", f"{name}.bn{number}", outs, ins, side)
            if i == 0:
                add(f"{name}.downsample.0", f"{name}.downsample.1", 2 * width, inputs, 1)
            inputs = 2 * width
    return found


def main() -> None:
    here = Path(__file__).parent
    seconds: dict[str, list[float]] = {"iadjax": [], "PyTorch": []}
    cpu: dict[str, list[float]] = {"iadjax": [], "PyTorch": []}
    printed = {}
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        draw(root / "good", _IMAGES.value)
        save_file(random_weights(), root / "weights.safetensors")
        for number in range(_ROUNDS.value):
            inputs = [str(root / "good"), str(root / "weights.safetensors")]
            commands = {
                "iadjax": ["-c", _OURS, *inputs, str(root / f"run{number}")],
                "PyTorch": [str(here / "mh_patchcore_torch.py"), *inputs],
            }
            for side, command in commands.items():
                began, before = time.perf_counter(), cpu_seconds()
                done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True)
                seconds[side].append(round(time.perf_counter() - began, 2))
                cpu[side].append(round(cpu_seconds() - before, 2))
                printed[side] = done.stdout.strip().splitlines()[-1]
                print(f"{side}: {seconds[side][-1]:.1f} s, {cpu[side][-1]:.1f} CPU-s ({printed[side]})", flush=True)
    ratios = [min(each["PyTorch"]) / min(each["iadjax"]) for each in (seconds, cpu)]
    print(f"PyTorch takes {ratios[0]:.2f} times as long, and {ratios[1]:.2f} times the CPU-seconds")
    if _JSON.value:
        found = {"images": _IMAGES.value, "seconds": seconds, "cpu_seconds": cpu, "printed": printed}
        found |= {"ratio": round(ratios[0], 2), "cpu_ratio": round(ratios[1], 2)}
        files.write_json(Path(_JSON.value), {"about": record.about(), "fit": found})


if __name__ == "__main__":
    cli.run(main)
