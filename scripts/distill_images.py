"""Collects photographs for scripts/distill.py: shrunk copies of images, as JPEG files.

    apt-get download gnome-backgrounds mate-backgrounds plasma-workspace-wallpapers lomiri-wallpapers-16.04 \
        lomiri-wallpapers-20.04 sway-backgrounds ukui-wallpapers redeclipse-data
    for package in *.deb; do dpkg -x $package packages/${package%%_*}; done
    python scripts/distill_images.py --collections=packages --output=photographs

Left out, and counted: small images, drawings that are nearly flat, normal maps, images with a transparent part, and images
that look like one before (a thumbnail of 8 x 8 greys). What is kept depends on the order of the paths alone.
"""

import collections
import io
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from iadjax import files, progress
from iadjax.data.listing import children, images_below
from iadjax.errors import UserError
from iadjax.experiment import cli
from iadjax.synthesis.source import draw_texture

_COLLECTIONS = flags.DEFINE_string("collections", "", "A folder; each folder in it is a collection of images.")
_OUTPUT = flags.DEFINE_string("output", "photographs", "Folder to write to; it must not exist.")
_SIDE = flags.DEFINE_integer("side", 640, "The longer side of a copy is at most this many pixels.", lower_bound=256)
_QUALITY = flags.DEFINE_integer("quality", 80, "JPEG quality.", lower_bound=1, upper_bound=95)
_MOST = flags.DEFINE_integer("most", 400, "Copies of one collection; of more, those that lie evenly in it.", lower_bound=1)
_TEXTURES = flags.DEFINE_integer("textures", 80, "Drawn textures that are added.", lower_bound=0)

# mean difference of two normalised thumbnails below which images look the same
_SAME = 0.12


def main() -> None:
    root = Path(_COLLECTIONS.value)
    if not _COLLECTIONS.value or not root.is_dir():
        raise UserError(f"give --collections=DIR, a folder of folders of images; {_COLLECTIONS.value!r} is no folder")
    folders = [each for each in children(root) if each.is_dir()]
    output = Path(_OUTPUT.value)
    if output.exists():
        raise UserError(f"{output} exists; give another --output")
    found = {folder: images_below(folder) for folder in folders}
    total, done, seen = sum(map(len, found.values())), 0, np.zeros((0, 64), np.float32)
    counts: collections.Counter = collections.Counter()
    chosen: list[bytes] = []
    with progress.track("images", total, "image") as report:
        for paths in found.values():
            kept = []
            for path in paths:
                done += 1
                report(done, total)
                image, reason = _shrunk(path)
                if image is not None:
                    thumbnail = _thumbnail(image)
                    if (np.abs(seen - thumbnail).mean(-1) < _SAME).any():
                        reason = "looks like one before"
                    else:
                        seen = np.concatenate((seen, thumbnail[None]))
                        kept.append(_jpeg(image))
                counts[reason] += 1
            picked = np.linspace(0, len(kept) - 1, min(len(kept), _MOST.value)).round().astype(int)
            counts["more than --most"] += len(kept) - len(picked)
            chosen += [kept[i] for i in picked]
    for number in range(_TEXTURES.value):
        texture = draw_texture(np.random.default_rng(number), (512, 512))
        chosen.append(_jpeg(Image.fromarray(np.round(255 * texture).astype(np.uint8))))
    counts["drawn"] = _TEXTURES.value
    with files.replacing(output) as folder:
        folder.mkdir()
        for number, copy in enumerate(chosen):
            (folder / f"{number:05d}.jpg").write_bytes(copy)
    counts[""] = len(chosen) - _TEXTURES.value
    for reason, count in counts.most_common():
        print(f"{reason or 'kept'}: {count}")


def _thumbnail(image: Image.Image) -> np.ndarray:
    """`[64]`: 8 x 8 greys with zero mean and unit variance; of dark and flat images less."""
    grey = np.asarray(image.convert("L").resize((8, 8), Image.Resampling.BOX), np.float32).ravel()
    return (grey - grey.mean()) / max(grey.std(), 1)


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY.value)
    return buffer.getvalue()


def _shrunk(file: Path) -> tuple[Image.Image | None, str]:
    """The copy of an image, and why it is left out."""
    try:
        with Image.open(file) as opened:
            if min(opened.size) < 256:
                return None, "a side under 256 pixels"
            opened.thumbnail((_SIDE.value, _SIDE.value), Image.Resampling.BICUBIC)
            alpha = np.asarray(opened.convert("RGBA"))[..., 3]
            image = opened.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError):
        return None, "not readable"
    if (alpha < 255).mean() > 0.01:
        return None, "a transparent part"
    if min(image.size) < 192:
        return None, "a side under 256 pixels"
    pixels = np.asarray(image, np.float32)
    # a drawing has long flat parts
    if (np.abs(np.diff(pixels.mean(-1), axis=1)) < 0.5).mean() > 0.6:
        return None, "nearly flat"
    mean = pixels.mean((0, 1))
    if mean[2] > 200 and np.abs(mean[:2] - 128).max() < 20:
        return None, "a normal map"
    return image, ""


if __name__ == "__main__":
    cli.run(main)
