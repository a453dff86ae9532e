"""Predictions over a split to metrics, files and the report."""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tifffile

from iadjax import data, files, metrics, progress, report
from iadjax.data import Item
from iadjax.data.transform import resize_map
from iadjax.errors import UserError, did_you_mean
from iadjax.experiment import record
from iadjax.experiment.run import Run
from iadjax.metrics.protocol import loco_metrics_within, mean_over_categories, pixel_metrics_within, resize_mask
from iadjax.parallel import distributed

__all__ = ["Result", "check_maps", "evaluate"]

_READ_AHEAD = 32


class Result(NamedTuple):
    """What a detector said of one image.

    Attributes:
      item: the image.
      score: its raw anomaly score.
      map: `[h, w]` float32 at the resolution of the network's input; None where the detector does not localise.
    """

    item: Item
    score: float
    map: np.ndarray | None


def evaluate(run: Run, split: str = "test", output: str | Path | None = None, speed: bool = True) -> dict[str, dict[str, Any]]:
    """Metrics of a run on one of its splits.

    Args:
      run: a fitted run.
      split: "test", "train" or "validation".
      output: a directory for `scores.csv`, `metrics.json`, `report/` (and `maps/` with `evaluate.save_maps`); None writes
        nothing. Of several processes the first one writes.
      speed: whether latency and throughput are measured.

    Returns:
      One dict per category plus "mean" over the categories, as `metrics.json` holds them; NaN where undefined.

    Raises:
      UserError: the split holds no images, or `output` cannot be written. Without test images the held-out ones are shown.
    """
    if split not in ("train", "validation", "test"):
        raise UserError(f"there is no split {split!r}; {did_you_mean(split, ('train', 'validation', 'test'))}")
    items = _items(run, split)
    clock = record.Clock()
    with record.compilations(clock):
        with clock.stage("predict"):
            results = [Result(*row) for row in run.predict_items(items, "evaluate")]
        with clock.stage("speed"):
            times = _speed(run, items[0]) if speed else {}
    with clock.stage("metrics"), _one_class_is_known(items):
        table = {category: _category(run, results, category) | times for category in run.data.dataset.categories}
        table["mean"] = mean_over_categories(list(table.values()))
    if output is not None and distributed.is_main():
        output = files.place(output)
        with clock.stage("report"):
            rows = [("path", "category", "label", "score")]
            rows += [(r.item.path, r.item.category, r.item.label, r.score) for r in results]
            files.write_text(output / "scores.csv", "".join(map(files.csv_line, rows)))
            if run.config["evaluate"]["save_maps"]:
                _save_maps(run, results, output / "maps")
            files.write_json(output / "metrics.json", table)
            report.write_report(output / "report", run, results, table)
        if (output / "run.json").is_file():
            record.update(output, clock)
    return table


@contextlib.contextmanager
def _one_class_is_known(items: Sequence[Item]) -> Iterator[None]:
    """Leaves out the warnings of undefined metrics where a line has said already that all images are of one class."""
    with warnings.catch_warnings():
        if len({item.label for item in items}) == 1:
            warnings.filterwarnings("ignore", message=".*the result is NaN")
        yield


def _items(run: Run, split: str) -> Sequence[Item]:
    """The images of a split; the held-out normal images where there is nothing to test on yet."""
    items = getattr(run.data.split, split)
    if not items and split == "test" and run.data.split.validation:
        progress.say(
            "the test part holds no images, so there are no metrics; the report shows the held-out normal images instead"
        )
        return run.data.split.validation
    if not items:
        raise UserError(f"the {split} split holds no images; give data that have some, or another split")
    return items


def _category(run: Run, results: Sequence[Result], category: str) -> dict[str, Any]:
    rows = [result for result in results if result.item.category == category]
    scores = np.array([row.score for row in rows])
    labels = np.array([row.item.label for row in rows])
    size = run.config["evaluate"]["eval_size"]
    found = dict(metrics.image_metrics(scores, labels)) if rows else {}
    keys = ("pixel_auroc", "pixel_ap", "pixel_f1max", "aupro", "aupro_05", "aupro_01")
    pixel = dict.fromkeys(keys, float("nan"))
    # an anomalous image without a mask would count as normal everywhere
    unmarked = not run.data.dataset.has_masks or any(row.item.label and not _has_mask(row.item) for row in rows)
    localised = bool(rows) and rows[0].map is not None
    if run.config["evaluate"]["pixel"] and localised and not unmarked:
        # a map has the same range of scores before and after it is enlarged
        pilot = np.stack([row.map for row in rows[:: max(1, len(rows) // 64)]])
        pairs = _at_evaluation_size(run, rows, size)
        pixel |= pixel_metrics_within(run.config["evaluate"]["byte_budget"], pairs, pilot)
        # saturation areas are pixels of the whole original
        if run.data.dataset.defects and not size and not run.config["data"]["crop"]:
            kinds = [row.item.defect for row in rows]
            pixel |= {f"image_auroc_{kind}": value for kind, value in metrics.loco_image_auroc(scores, kinds).items()}
            pixel |= loco_metrics_within(run.config["evaluate"]["byte_budget"], _with_defects(run, rows), pilot)
        if run.data.dataset.name == "mvtec_ad_2" and "pixel_value" in (run.threshold or {}):
            lights = ("regular" if Path(row.item.path).stem.endswith("_regular") else "shifted" for row in rows)
            images = ((*pair, light) for pair, light in zip(_at_evaluation_size(run, rows, size), lights, strict=True))
            pixel |= metrics.seg_and_class_f1(images, run.threshold["pixel_value"])
    found |= pixel | {"resolution": f"{size}x{size}" if size else "original", "images": len(rows)}
    if run.threshold is not None and rows:
        found["threshold"] = {"value": run.threshold["value"]} | metrics.threshold_report(
            run.threshold["value"], scores, labels
        )
    return found


def _at_evaluation_size(run: Run, rows: Sequence[Result], size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Map and mask of the visible part of each image, at its own resolution or at `size` x `size`; a few at a time."""

    def pair(row: Result) -> tuple[np.ndarray, np.ndarray]:
        mask = data.read(run.data.dataset, row.item)[1]
        visible = run.transform.visible(mask)
        if not size:
            return run.transform.map_back(row.map, *mask.shape), visible
        # where maps are smoothed at the original resolution, they have to go there first
        bring = run.transform.map_back if run.transform.map_sigma else run.transform.extend
        return resize_map(bring(row.map, *mask.shape), (size, size)), resize_mask(visible, (size, size))

    return _few_at_a_time(pair, rows)


def _with_defects(run: Run, rows: Sequence[Result]) -> Iterator[tuple[np.ndarray, list[metrics.Defect], str]]:
    """Map, defects and kind of each image at its own resolution; a few at a time."""

    def image(row: Result) -> tuple[np.ndarray, list[metrics.Defect], str]:
        height, width = data.read(run.data.dataset, row.item)[1].shape
        return run.transform.map_back(row.map, height, width), run.data.dataset.defects(row.item), row.item.defect

    return _few_at_a_time(image, rows)


def _few_at_a_time(function: Callable, rows: Sequence[Result]) -> Iterator[tuple]:
    """The function of every row, in order; threads compute a few rows ahead."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), _READ_AHEAD):
            yield from pool.map(function, rows[start : start + _READ_AHEAD])


def _has_mask(item: Item) -> bool:
    return item.file is None or item.mask is not None


def _speed(run: Run, item: Item) -> dict[str, float]:
    """Milliseconds for one image and images a second in batches, both after a warm-up; input on the host."""
    image = run.transform.resample(data.read(run.data.dataset, item)[0])
    tile = run.transform.tile
    number = 1 if tile is None else len(data.tiling.positions(image.shape[:2], tile, run.transform.overlap))
    part = image if tile is None else data.tiling.cut(image, (0, 0), tile)
    further = {name: run.resample(name, run.data.dataset.points(item)) for name in run.detector.inputs}
    size = run.config["data"]["batch_size"]
    batch = np.repeat(part[None], size, axis=0)
    parts = further if tile is None else {name: data.tiling.cut(each, (0, 0), tile) for name, each in further.items()}
    parts = {name: np.repeat(each[None], size, axis=0) for name, each in parts.items()}

    def seconds(predict: Callable, images: np.ndarray) -> float:
        predict(images)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            predict(images)
            times.append(time.perf_counter() - began)
        return float(np.median(times))

    one = seconds(lambda one: run.score_image(one, further), image)
    many = seconds(lambda images: jax.device_get(run.predict_batch(images, parts)), batch) * number / len(batch)
    return {"latency_ms": round(1000 * one, 3), "throughput_ips": round(1 / many, 3)}


def check_maps(config: Mapping[str, Any]) -> None:
    """A UserError where maps are to be saved and a config gives them for a part of each image alone."""
    if config["evaluate"]["save_maps"] and config["data"]["crop"]:
        raise UserError("evaluate.save_maps needs data.crop=0: outside a crop there is no map")


def _save_maps(run: Run, results: Sequence[Result], directory: Path) -> None:
    """Every map as a float32 TIFF of the original's size, named as the image."""
    check_maps(run.config)
    if any(row.map is None for row in results):
        raise UserError("evaluate.save_maps needs maps, and this detector does not localise")
    for row in results:
        height, width = data.read(run.data.dataset, row.item)[1].shape
        with files.replacing((directory / row.item.path).with_suffix(".tiff")) as temporary:
            tifffile.imwrite(temporary, run.transform.map_back(row.map, height, width))
