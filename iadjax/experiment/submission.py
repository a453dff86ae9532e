"""Submissions to the server of MVTec AD 2: maps of the private test images, as scores and as decisions.

Layout: anomaly_images/<category>/<test_private|test_private_mixed>/<image>.tiff, float16 of the image's size, and
anomaly_images_thresholded/... .png, 0 and 255. MVTec's own checker, offered beside the data set, packs that folder.
"""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from iadjax import data, files, progress
from iadjax.data.sources.published.mvtec_ad_2 import CATEGORIES, PRIVATE
from iadjax.errors import UserError
from iadjax.experiment.load import read_config
from iadjax.metrics.mapfiles import read_map

__all__ = ["categories_missing", "write_submission"]

NAME = "mvtec_ad_2_private"


def write_submission(
    workdir: str | Path, output: str | Path, threshold: float | None = None, data_root: str | None = None
) -> int:
    """Writes the maps of a run's private test images to `output`; runs of other categories can be added to the same folder.

    Args:
      workdir: an evaluated run with data.name=mvtec_ad_2_private and evaluate.save_maps=True.
      output: the folder of the submission.
      threshold: a pixel is anomalous if its score is at least this; None takes `pixel_value` of the run's threshold.json, which
        comes from normal images, or the threshold of images where there is none.
      data_root: where the images are now, if not where they were when the run was fitted.

    Returns:
      The number of images.

    Raises:
      UserError: another run, a map that is missing, of the wrong size or beyond float16 (named), or no threshold.
    """
    workdir, output = files.place(workdir), files.place(output)
    config = read_config(workdir)["data"]
    if config["name"] != NAME:
        raise UserError(f"{workdir} is a run on {config['name']}; fit one with --config.data.name={NAME}")
    if threshold is None:
        threshold = _threshold(workdir / "threshold.json")
    if not np.isfinite(threshold):
        raise UserError(f"the threshold must be a finite number, got {threshold}")
    reading = {key: config[key] for key in ("value_range", "channels", "max_pixels") if key in config}
    root = config["root"] if data_root is None else data_root
    dataset = data.load(NAME, root=root, category=config["category"], **reading)
    # nothing is written if a map is missing
    missing = [item.path for item in dataset.test if not _map_file(workdir, item).is_file()]
    if missing:
        raise UserError(
            f"{workdir / 'maps'} lacks {len(missing)} of {len(dataset.test)} maps, like {missing[0]}; "
            "fit and evaluate with --config.evaluate.save_maps=True"
        )
    for item in dataset.test:
        scores = read_map(_map_file(workdir, item))
        size = dataset.read(item)[1].shape
        if scores.shape != size:
            raise UserError(f"the map {_map_file(workdir, item)} is {scores.shape}, but its image is {size}; evaluate again")
        # NaN fails too
        if not (np.abs(scores) <= np.finfo(np.float16).max).all():
            raise UserError(f"the map {_map_file(workdir, item)} holds scores beyond float16 (65504), which the server takes")
        path = Path(item.path)
        with files.replacing((output / "anomaly_images" / path).with_suffix(".tiff")) as temporary:
            tifffile.imwrite(temporary, scores.astype(np.float16))
        with files.replacing((output / "anomaly_images_thresholded" / path).with_suffix(".png")) as temporary:
            Image.fromarray(((scores >= np.float64(threshold)) * 255).astype(np.uint8)).save(temporary, format="PNG")
    return len(dataset.test)


def _map_file(workdir: Path, item: data.Item) -> Path:
    return (workdir / "maps" / item.path).with_suffix(".tiff")


def _threshold(file: Path) -> float:
    advice = "give --workdir=DIR of a fitted run, or --threshold"
    found = files.read_json(file, advice)
    for key, what in (("pixel_value", "pixels"), ("value", "images, because it has none of pixels")):
        if isinstance(found.get(key), int | float):
            progress.say(f"submission: a pixel is anomalous from {found[key]:.6g} on, the run's threshold of {what}")
            return float(found[key])
    raise UserError(f"{file} has no number 'pixel_value' or 'value'; {advice}")


def categories_missing(output: str | Path) -> tuple[str, ...]:
    """The categories of MVTec AD 2 that a submission does not hold yet; the server takes all eight together."""
    folder = files.place(output) / "anomaly_images"
    return tuple(name for name in CATEGORIES if not all((folder / name / part).is_dir() for part in PRIVATE))
