"""Pictures of real runs on the built-in images: the strip of the README, and the reports of the site's gallery.

python scripts/pictures.py                                     # docs/images/strip.jpg and docs/gallery/
python scripts/pictures.py --config=configs/unsupervised/patchcore.py:synthetic --workdir=runs/pictures

The strip shows one defect of each category: the image, the truth, and the map of the first config. Fitted runs in --workdir are
not fitted again.
"""

import shutil
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image, ImageDraw

import iadjax
from iadjax import data, files
from iadjax.config import load_config
from iadjax.experiment import cli
from iadjax.report.pictures import map_range, overlay, picture

_CONFIGS = flags.DEFINE_multi_string(
    "config",
    ["configs/unsupervised/patchcore.py:synthetic", "configs/unsupervised/padim.py:synthetic,category=all"],
    "A config of the gallery, repeated for several; the first one gives the strip.",
)
_WORKDIR = flags.DEFINE_string("workdir", "runs/pictures", "Directory of the runs.")
_STRIP = flags.DEFINE_string("strip", "docs/images/strip.jpg", "File of the strip; empty for none.")
_GALLERY = flags.DEFINE_string("gallery", "docs/gallery", "Folder of the reports; empty for none.")
_SIDE = flags.DEFINE_integer("side", 150, "Side of a picture of the strip.", lower_bound=32)

ROWS = ("image", "truth", "map")
_HEAD = 52


def fitted(config: str, workdir: Path) -> iadjax.Run:
    """The run of a config, with its report."""
    resume = (workdir / "config.json").is_file()
    run = iadjax.fit(load_config(config), workdir, resume=resume)
    if not (workdir / "report/index.html").is_file():
        iadjax.evaluate(run, output=workdir)
    return run


def strip(run: iadjax.Run, side: int) -> Image.Image:
    """One defect of each category in a column: the image, its truth, its map."""
    found = {}
    for item in run.data.split.test:
        if item.label:
            found.setdefault(item.category, item)
    low, high = map_range(run.threshold)
    sheet = Image.new("RGB", (_HEAD + len(found) * (side + 4), len(ROWS) * (side + 4)), "white")
    for row, name in enumerate(ROWS):
        ImageDraw.Draw(sheet).text((4, row * (side + 4) + side // 2), name, fill="black")
    for column, item in enumerate(found.values()):
        pixels, mask = data.read(run.data.dataset, item)
        anomaly_map = run.predict(pixels).map[0]
        heat = np.asarray(overlay(pixels, run.transform, anomaly_map, low, high))
        shown = (picture(pixels), np.repeat(255 * mask[..., None], 3, axis=-1), heat)
        for row, each in enumerate(shown):
            small = Image.fromarray(each).resize((side, side), Image.Resampling.LANCZOS)
            sheet.paste(small, (_HEAD + column * (side + 4), row * (side + 4)))
    return sheet


def main() -> None:
    runs = {Path(config.split(".py")[0]).name: config for config in _CONFIGS.value}
    for number, (name, config) in enumerate(runs.items()):
        workdir = files.place(_WORKDIR.value) / name
        run = fitted(config, workdir)
        if number == 0 and _STRIP.value:
            with files.replacing(files.place(_STRIP.value)) as temporary:
                strip(run, _SIDE.value).save(temporary, format="JPEG", quality=90)
            print(f"strip: {_STRIP.value}")
        if _GALLERY.value:
            target = files.place(_GALLERY.value) / name
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(workdir / "report", target)
            print(f"report: {target / 'index.html'}")


if __name__ == "__main__":
    cli.run(main)
