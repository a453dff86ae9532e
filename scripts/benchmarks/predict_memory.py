"""Peak memory of scripts/predict.py against the size of an image and the number of images.

    python scripts/benchmarks/predict_memory.py --json=results/predict_memory_cpu.json     # three minutes on two cores
    python scripts/benchmarks/predict_memory.py --megapixels=1,4 --numbers=2,4

Each case is a process of its own that scores JPEG files with PatchCore on 64 x 64 pixels (`filter_bank`), and then tells its
largest resident memory (Linux). The images are synthetic ones, enlarged. An image's own bytes are 3 for each pixel.
`times_own_bytes` is what a single large image takes beyond a tiny one, as a multiple of them.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jax
from absl import flags
from PIL import Image

import iadjax
from iadjax import data, files
from iadjax.config import base_config
from iadjax.experiment import cli, record

_MEGAPIXELS = flags.DEFINE_list("megapixels", ["1", "24", "95"], "Sizes of a single image, in millions of pixels.")
_NUMBERS = flags.DEFINE_list("numbers", ["10", "200"], "Numbers of images of 1 million pixels.")
_JSON = flags.DEFINE_string("json", "", "File for the figures.")
_CASE = flags.DEFINE_list("case", [], "RUN,FOLDER,OUTPUT,KIND,...: one case, in a process of its own.")

SAVE = (("overlays",), ("overlays", "maps", "masks"), ("overlays", "contours"))


def draw(folder: Path, megapixels: float, number: int) -> None:
    """JPEG files of square images, with and without a defect in turns; a single one has a defect."""
    folder.mkdir()
    found = data.load("synthetic", category="washer")
    items = [[item for item in found.test if item.label == label] for label in (1, 0)]
    side = round((megapixels * 1e6) ** 0.5)
    for i in range(number):
        pixels = found.read(items[i % 2][i // 2 % len(items[i % 2])])[0]
        Image.fromarray(pixels).resize((side, side)).save(folder / f"{i:03d}.jpg")


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
    # the first call compiles, which takes memory of its own
    _, base = (peak(root / "run", root / "tiny", root / f"out-tiny{i}", SAVE[0]) for i in range(2))
    found = {"one tiny image": {"peak_mib": round(base)}}
    cases = [(float(size), 1, save) for size in _MEGAPIXELS.value for save in SAVE]
    cases += [(1.0, int(number), SAVE[0]) for number in _NUMBERS.value]
    for size, number, save in cases:
        folder = root / f"{size}-{number}"
        if not folder.exists():
            draw(folder, size, number)
        name = f"{number} x {size:g} MP, {'+'.join(save)}"
        used = peak(root / "run", folder, root / f"out-{len(found)}", save)
        own = 3 * size * 1e6 / 2**20
        found[name] = {"peak_mib": round(used), "own_mib": round(own, 1)}
        # the program itself varies by tens of MiB, which is more than a small image has
        if number == 1 and own > 50:
            found[name]["times_own_bytes"] = round((used - base) / own, 1)
        print(name, found[name], flush=True)
    return found


def main() -> None:
    if _CASE.value:
        run, folder, output, *save = _CASE.value
        iadjax.predict_files(iadjax.load(run), folder, output, save=save)
        # the peak of `getrusage` would be that of the parent, which a new process inherits
        print(int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text()).group(1)) / 1024)
        return
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory))
    if _JSON.value:
        about = {"versions": record.versions(), "device": jax.devices()[0].device_kind}
        files.write_json(Path(_JSON.value), {"about": about, "cases": found})
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    cli.run(main)
