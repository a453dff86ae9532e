"""Peak memory of reading one image through the transform, against the size of the image.

    python scripts/benchmarks/reading_memory.py --json=results/reading_memory.json     # five minutes on two cores
    python scripts/benchmarks/reading_memory.py --megapixels=1 [--kinds=rgb8.png]

Each image is read in a process of its own: `Transform.image(read_image(file))`, resized to 256. "bytes" is height x width x
channels x bytes of a value, as stored; "times" is the growth of the peak resident memory divided by it. Linux alone.
"""

import struct
import subprocess
import sys
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np
import tifffile
from absl import flags
from PIL import Image

from iadjax import data, files
from iadjax.experiment import cli, record

_MEGAPIXELS = flags.DEFINE_list("megapixels", ["1", "24", "95"], "Sizes of the images, in millions of pixels.")
_KINDS = flags.DEFINE_list("kinds", [], "Which kinds of files; all by default.")
_JSON = flags.DEFINE_string("json", "", "File for the figures.")

KINDS = {
    "rgb8.png": (np.uint8, 3),
    "rgb8.jpg": (np.uint8, 3),
    "grey8.png": (np.uint8, 1),
    "grey16.png": (np.uint16, 1),
    "rgb16.png": (np.uint16, 3),
    "rgb16.tif": (np.uint16, 3),
    "float.tif": (np.float32, 1),
}
"""{name of the file: (type of the values, channels)}."""


def draw(file: Path, kind: str, megapixels: float) -> int:
    """Writes an image of 3 to 2 and returns its bytes as stored in memory."""
    dtype, channels = KINDS[kind]
    height = round((megapixels * 1e6 / 1.5) ** 0.5)
    width = round(1.5 * height)
    rows = (np.arange(height * width * channels) % 251).reshape(height, width, channels).squeeze()
    values = (rows / 250).astype(dtype) if dtype == np.float32 else rows.astype(dtype) * (257 if dtype == np.uint16 else 1)
    values = values.astype(dtype)
    if kind == "rgb16.png":
        write_deep_png(file, values)
    elif file.suffix == ".tif":
        tifffile.imwrite(file, values, photometric="rgb" if channels == 3 else "minisblack")
    else:
        Image.fromarray(values).save(file)
    return values.nbytes


def write_deep_png(file: Path, values: np.ndarray) -> None:
    """RGB of 16 bits without filters; Pillow writes 8 bits alone."""
    lines = np.zeros((values.shape[0], 1 + values[0].nbytes), np.uint8)
    lines[:, 1:] = values.astype(">u2").view(np.uint8).reshape(values.shape[0], -1)

    def chunk(name: bytes, contents: bytes) -> bytes:
        return struct.pack(">I", len(contents)) + name + contents + struct.pack(">I", zlib.crc32(name + contents))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines.tobytes(), 1)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def resident(key: str) -> int:
    """Bytes of this process by a key of /proc/self/status: VmRSS now, VmHWM at the peak."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return 1024 * int(line.split()[1])


def measure(file: Path) -> tuple[int, float]:
    """(bytes that the peak grows by, seconds) of reading a file once."""
    transform = data.Transform(256)
    # what is loaded at the first use does not count
    small = file.with_name("small.png")
    Image.new("RGB", (300, 300)).save(small)
    transform.image(data.read_image(small))
    # the peak begins anew
    Path("/proc/self/clear_refs").write_text("5")
    before, began = resident("VmRSS"), time.perf_counter()
    transform.image(data.read_image(file))
    return max(0, resident("VmHWM") - before), time.perf_counter() - began


def main() -> None:
    rows = []
    for megapixels in map(float, _MEGAPIXELS.value):
        for kind in _KINDS.value or KINDS:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder) / kind
                size = draw(file, kind, megapixels)
                code = (
                    f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import reading_memory; "
                    f"from pathlib import Path; print(*reading_memory.measure(Path({str(file)!r})))"
                )
                done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
            grown, seconds = map(float, done.stdout.split())
            times = round(grown / size, 2)
            row = {"kind": kind, "megapixels": megapixels, "bytes": size, "peak_bytes": int(grown), "times": times}
            rows.append({**row, "seconds": round(seconds, 3)})
            sizes = f"{megapixels:>6.0f} MP {size / 1e6:>8.0f} MB {grown / 1e6:>8.0f} MB peak"
            print(f"{kind:<12}{sizes}, {times:>5.2f} times, {seconds:.2f} s", flush=True)
    if _JSON.value:
        files.write_json(Path(_JSON.value), {**record.about(), "rows": rows})


if __name__ == "__main__":
    cli.run(main)
