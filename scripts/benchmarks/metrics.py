"""Times the metrics side by side with plain forms of them, in one run on one machine.

    python scripts/benchmarks/metrics.py                        100 maps of 256 x 256
    python scripts/benchmarks/metrics.py --stream               also 1,000 maps of 1024 x 1024 as a stream: time, peak memory
    python scripts/benchmarks/metrics.py --json=FILE

The plain AU-PRO sorts all pixels in float64 with `numpy.argsort` and labels with `scipy.ndimage.label`; the plain pixel
metrics are the calls of scikit-learn. Needs the `test` extra.
"""

import os
import platform
import resource
import sys
import time
from pathlib import Path

import numpy as np
from absl import flags
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from iadjax import files, metrics
from iadjax.experiment import cli
from iadjax.metrics import streaming

_IMAGES = flags.DEFINE_integer("images", 100, "Number of maps.")
_SIZE = flags.DEFINE_integer("size", 256, "Side of the maps.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Timed rounds; the forms take turns, the median counts.")
_STREAM = flags.DEFINE_bool("stream", False, "Also stream maps that are made on the fly.")
_STREAM_IMAGES = flags.DEFINE_integer("stream_images", 1000, "Number of streamed maps.")
_STREAM_SIZE = flags.DEFINE_integer("stream_size", 1024, "Side of the streamed maps.")
_JSON = flags.DEFINE_string("json", None, "A file for the figures.")


def example(rng: np.random.Generator, size: int, defective: bool) -> tuple[np.ndarray, np.ndarray]:
    """A smooth map of noise as detectors give them, and blobs of several sizes where it is raised."""
    coarse = rng.gamma(2.0, 1.0, (size // 8, size // 8)).astype(np.float32)
    scores = ndimage.zoom(coarse, 8, order=1) + rng.random((size, size), np.float32) / 64
    mask = np.zeros((size, size), bool)
    if defective:
        rows, columns = np.ogrid[:size, :size]
        for _ in range(rng.integers(1, 5)):
            row, column = rng.integers(0, size, 2)
            height, width = rng.integers(size // 64, size // 8, 2)
            mask |= ((rows - row) / height) ** 2 + ((columns - column) / width) ** 2 <= 1
        scores[mask] += rng.gamma(3.0, 1.0)
    return scores, mask


def plain_aupro(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> float:
    """AU-PRO as its definition reads: one descending sort of all pixels in float64, running sums, trapezoid."""
    weights = np.zeros(maps.shape)
    count = 0
    for weight, mask in zip(weights, masks, strict=True):
        labels, regions = ndimage.label(mask, structure=np.ones((3, 3)))
        areas = np.bincount(labels.ravel())
        weight[mask] = 1 / areas[labels[mask]]
        count += regions
    scores = maps.astype(np.float64).ravel()
    order = np.argsort(-scores)
    scores = scores[order]
    false = np.cumsum(~masks.ravel()[order])
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    fpr = np.append(0, false[last] / false[-1])
    pro = np.append(0, np.cumsum(weights.ravel()[order])[last] / count)
    inside = fpr <= limit
    fpr, pro = np.append(fpr[inside], limit), np.append(pro[inside], np.interp(limit, fpr, pro))
    return float(np.trapezoid(pro, fpr) / limit)


def plain_pixel(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float, float]:
    """AUROC, average precision and F1-max by scikit-learn."""
    scores, labels = maps.ravel(), masks.ravel()
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, np.finfo(float).tiny)
    return float(roc_auc_score(labels, scores)), float(average_precision_score(labels, scores)), float(f1.max())


def own_pixel(maps: np.ndarray, masks: np.ndarray) -> tuple[float, float, float]:
    """The same three, which come with the AU-PRO figures from one sorted pass."""
    found = metrics.pixel_metrics(maps, masks)
    return found["pixel_auroc"], found["pixel_ap"], found["pixel_f1max"]


def compare() -> dict:
    """Medians over rounds in which all forms take turns, their ratios, and the largest difference of the values."""
    rng = np.random.default_rng(0)
    pairs = [example(rng, _SIZE.value, i % 4 != 0) for i in range(_IMAGES.value)]
    maps, masks = (np.stack(each) for each in zip(*pairs, strict=True))
    forms = {"aupro": metrics.aupro, "aupro_plain": plain_aupro, "pixel": own_pixel, "pixel_sklearn": plain_pixel}
    seconds = {name: [] for name in forms}
    values = {}
    for _ in range(_ROUNDS.value):
        for name, form in forms.items():
            began = time.perf_counter()
            values[name] = form(maps, masks)
            seconds[name].append(time.perf_counter() - began)
    median = {name: float(np.median(each)) for name, each in seconds.items()}
    differences = np.subtract(values["aupro"], values["aupro_plain"]), np.subtract(values["pixel"], values["pixel_sklearn"])
    return {
        "maps": list(maps.shape),
        "defect_pixels": int(masks.sum()),
        "seconds": median,
        "aupro_times_faster": median["aupro_plain"] / median["aupro"],
        "pixel_times_faster": median["pixel_sklearn"] / median["pixel"],
        "largest_difference": float(max(np.max(np.abs(each)) for each in differences)),
    }


def stream() -> dict:
    """Streams maps that exist one at a time."""
    rng = np.random.default_rng(1)
    size, count = _STREAM_SIZE.value, _STREAM_IMAGES.value
    state = streaming.init()
    making = 0.0
    began = time.perf_counter()
    for i in range(count):
        before = time.perf_counter()
        scores, mask = example(rng, size, i % 4 != 0)
        making += time.perf_counter() - before
        state = streaming.update(state, scores[None], mask[None])
    found = streaming.compute(state)
    total = time.perf_counter() - began
    # macOS counts bytes, Linux kibibytes
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "maps": [count, size, size],
        "seconds": total - making,
        "seconds_to_make_the_maps": making,
        "peak_rss_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30,
        "metrics": found.metrics,
        "error_bounds": found.error_bounds,
        "iou_max": streaming.iou_max(state),
        "aupimo": streaming.aupimo(state),
    }


def main() -> None:
    # the stream first: the peak of memory is that of the whole process
    figures = {"machine": platform.machine(), "cpus": len(os.sched_getaffinity(0)), "numpy": np.__version__}
    if _STREAM.value:
        figures["stream"] = stream()
    figures["exact"] = compare()
    for part in ("stream", "exact"):
        for key, value in figures.get(part, {}).items():
            print(f"{part:8}{key:28}{value}")
    if _JSON.value:
        files.write_json(Path(_JSON.value), figures)


if __name__ == "__main__":
    cli.run(main)
