"""Peak memory of scripts/predict.py against the size of an image and the number of images.

    python scripts/benchmarks/predict_memory.py --json=results/predict_memory_cpu.json     # three minutes on two cores
    python scripts/benchmarks/predict_memory.py --megapixels=1,4 --numbers=2,4

Each case is a process of its own that scores JPEG files with PatchCore on 64 x 64 pixels (`filter_bank`), and then tells its
largest resident memory. An image's own bytes are 3 for each pixel. `times_own_bytes` is what a case takes beyond scoring one
image of 64 x 64 pixels, as a multiple of them.
"""

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from absl import flags
from PIL import Image

import iadjax
from iadjax import files
from iadjax.config import base_config
from iadjax.experiment import cli, record

_MEGAPIXELS = flags.DEFINE_list("megapixels", ["1", "24", "95"], "Sizes of a single image, in millions of pixels.")
_NUMBERS = flags.DEFINE_list("numbers", ["10", "200"], "Numbers of images of 1 million pixels.")
_JSON = flags.DEFINE_string("json", "", "File for the figures.")
_CASE = flags.DEFINE_list("case", [], "RUN,FOLDER,OUTPUT,KIND,...: one case, in a process of its own.")

ALL = ("overlays", "maps", "masks", "contours")


def draw(folder: Path, megapixels: float, number: int) -> None:
    """JPEG files in the shape 3:2, smooth noise."""
    folder.mkdir()
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    for i in range(number):
        coarse = np.random.default_rng(i).integers(90, 140, (16, 24, 3), np.uint8)
        Image.fromarray(coarse).resize((round(1.5 * height), height)).save(folder / f"{i:03d}.jpg")


def peak(run: Path, folder: Path, output: Path, save: tuple[str, ...]) -> float:
    """MiB of a process that predicts a folder."""
    case = ",".join(map(str, (run, folder, output, *save)))
    done = subprocess.run([sys.executable, __file__, f"--case={case}"], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def measure(root: Path) -> dict[str, dict]:
    """The figures of all cases."""
    config = base_config("patchcore", "synthetic")
    config.data.update({"category": "washer", "resize": 64, "batch_size": 8})
    config.detector.update({"layers": ("layer1",), "coreset_ratio": 0.01})
    iadjax.fit(config, root / "run")
    draw(root / "tiny", 0.006, 1)
    base = peak(root / "run", root / "tiny", root / "out-tiny", ("overlays",))
    found = {"one tiny image": {"peak_mib": round(base)}}
    cases = [(float(size), 1, save) for size in _MEGAPIXELS.value for save in (("overlays",), ALL)]
    cases += [(1.0, int(number), ("overlays",)) for number in _NUMBERS.value]
    for size, number, save in cases:
        folder = root / f"{size}-{number}"
        if not folder.exists():
            draw(folder, size, number)
        name = f"{number} x {size:g} MP, {'+'.join(save)}"
        used = peak(root / "run", folder, root / f"out-{size}-{number}-{len(save)}", save)
        own = 3 * size * 1e6 / 2**20
        found[name] = {"peak_mib": round(used), "own_mib": round(own, 1), "times_own_bytes": round((used - base) / own, 1)}
        print(name, found[name], flush=True)
    return found


def main() -> None:
    if _CASE.value:
        run, folder, output, *save = _CASE.value
        iadjax.predict_files(iadjax.load(run), folder, output, save=save)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory))
    if _JSON.value:
        about = {"versions": record.versions(), "device": jax.devices()[0].device_kind}
        files.write_json(Path(_JSON.value), {"about": about, "cases": found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    cli.run(main)
