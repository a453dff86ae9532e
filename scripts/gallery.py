"""Draws synthetic anomalies of every kind into normal images, so that a person can look at them.

python scripts/gallery.py --output=gallery.png                                    # built-in synthetic images
python scripts/gallery.py --folder=IMAGES --textures=DTD --rows=6 --output=gallery.png

One row per image: the image, then CutPaste, its scar, NSA with normal and with mixed gradients, Perlin + texture (DRAEM); the
defect's outline in red.
"""

from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image, ImageDraw
from scipy import ndimage

from iadjax import UserError, data, files
from iadjax.data.listing import images_below
from iadjax.data.transform import Transform
from iadjax.experiment import cli
from iadjax.synthesis.cutpaste import cutpaste, cutpaste_scar
from iadjax.synthesis.nsa import nsa
from iadjax.synthesis.perlin_texture import perlin_anomaly
from iadjax.synthesis.source import image_source

_FOLDER = flags.DEFINE_string("folder", "", "Folder of normal images; the built-in synthetic ones if empty.")
_TEXTURES = flags.DEFINE_string("textures", "", "Folder of textures for Perlin masks; drawn ones if empty.")
_ROWS = flags.DEFINE_integer("rows", 6, "Images.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 256, "Side of a picture.", lower_bound=32)
_SEED = flags.DEFINE_integer("seed", 0, "Seed.")
_OUTPUT = flags.DEFINE_string("output", "gallery.png", "File to write.")

TITLES = ("normal", "cutpaste", "cutpaste scar", "nsa", "nsa mixed", "perlin texture")


def normal_images() -> list[np.ndarray]:
    """The first `rows` images, `[size, size, 3]` float32; one more as a source of patches."""
    transform = Transform(_SIZE.value, 0)
    if _FOLDER.value:
        root = Path(_FOLDER.value).expanduser()
        paths = images_below(root)
        if len(paths) < 2:
            raise UserError(f"{root} holds {len(paths)} images, but patches come from a second one; give a folder with more")
        return [transform.image(data.read_image(path)) for path in paths[: _ROWS.value + 1]]
    dataset = data.load("synthetic", category="all")
    # a few of each category in turn
    by_category = [[item for item in dataset.train if item.category == name] for name in dataset.categories]
    items = [group[i] for i in range(2 + _ROWS.value // len(by_category)) for group in by_category]
    return [transform.image(dataset.read(item)[0]) for item in items[: _ROWS.value + 1]]


def main() -> None:
    images, source = normal_images(), image_source(_TEXTURES.value)
    side, head = _SIZE.value, 20
    rows = min(_ROWS.value, len(images))
    sheet = Image.new("RGB", (len(TITLES) * side, rows * side + head), "white")
    for column, title in enumerate(TITLES):
        ImageDraw.Draw(sheet).text((column * side + 4, 4), title, fill="black")
    for row, image in enumerate(images[:rows]):
        rng = np.random.default_rng((_SEED.value, row))
        other = images[(row + 1) % len(images)]
        drawn = [
            (image, np.zeros(image.shape[:2], np.uint8)),
            cutpaste(rng, image),
            cutpaste_scar(rng, image),
            nsa(rng, image, other),
            nsa(rng, image, other, mixed=True),
            perlin_anomaly(rng, image, source),
        ]
        for column, (picture, mask) in enumerate(drawn):
            pixels = np.round(255 * picture).astype(np.uint8)
            pixels[ndimage.binary_dilation(mask, iterations=2) & (mask == 0)] = (255, 0, 0)
            sheet.paste(Image.fromarray(pixels), (column * side, head + row * side))
    with files.replacing(Path(_OUTPUT.value)) as temporary:
        sheet.save(temporary, format="png")
    print(f"gallery: {_OUTPUT.value}")


if __name__ == "__main__":
    cli.run(main)
