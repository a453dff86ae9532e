"""What a search measures: held-out normal images against synthetic anomalies in the same images. No test image is read."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from iadjax import data, metrics
from iadjax.data.images import to_float
from iadjax.errors import UserError
from iadjax.experiment.run import Run
from iadjax.metrics.protocol import pixel_metrics_within
from iadjax.synthesis.cutpaste import cutpaste
from iadjax.synthesis.perlin_texture import perlin_anomaly
from iadjax.synthesis.source import draw_texture

__all__ = ["METRICS", "WAYS", "measure", "synthetic_anomalies"]

METRICS = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "aupro")
WAYS = "CutPaste, and drawn textures in regions of Perlin noise"

# held-out images that are used at most, evenly over all
_MOST = 100


def measure(run: Run, metric: str, seed: int) -> float:
    """A metric of a run on its held-out normal images and two synthetic anomalies in each of them, one of each way.

    Args:
      run: a fitted run with held-out images.
      metric: one of `METRICS`.
      seed: draws the anomalies; the same for every trial, so that trials differ in the method alone.

    Raises:
      UserError: there are no held-out images, or a pixel metric is asked of a detector without maps.
    """
    items = run.data.split.validation
    if not items:
        raise UserError("a search needs held-out normal images; set --config.threshold.holdout above 0, like 0.2")
    items = items[:: -(-len(items) // _MOST)]
    pixel = not metric.startswith("image")
    rows = list(_predicted(run, _images(run, items, seed), pixel))
    if not pixel:
        scores, labels = np.array([row.score for row in rows]), np.array([row.label for row in rows])
        return float(metrics.image_metrics(scores, labels)[metric])
    if rows[0].map is None:
        raise UserError(f"--search_metric={metric} needs maps, and this detector has none; take image_auroc")
    pairs = ((run.transform.map_back(row.map, *row.mask.shape), run.transform.visible(row.mask)) for row in rows)
    return float(pixel_metrics_within(run.config["evaluate"]["byte_budget"], pairs)[metric])


class _Image(NamedTuple):
    """An image with its mask, what else the detector needs, and whether it is anomalous."""

    image: np.ndarray
    mask: np.ndarray
    extra: dict[str, np.ndarray]
    label: int


class _Row(NamedTuple):
    score: float
    map: np.ndarray | None
    mask: np.ndarray | None
    label: int


def _images(run: Run, items: Sequence[data.Item], seed: int) -> Iterator[_Image]:
    """Every held-out image, and its two anomalies."""
    for number, item in enumerate(items):
        image = data.read(run.data.dataset, item)[0]
        extra = {name: run.data.dataset.points(item) for name in run.detector.inputs}
        yield _Image(image, np.zeros(image.shape[:2], np.uint8), extra, 0)
        for made, mask in synthetic_anomalies(image, (seed, number)):
            yield _Image(made, mask, extra, 1)


def _predicted(run: Run, images: Iterator[_Image], pixel: bool) -> Iterator[_Row]:
    """Scores of all images, and maps and masks for pixel metrics; a batch of one size at a time is held."""
    for _, group in itertools.groupby(images, lambda each: each.image.shape):
        while part := list(itertools.islice(group, run.config["data"]["batch_size"])):
            extra = {name: [each.extra[name] for each in part] for name in run.detector.inputs}
            found = run.predict([each.image for each in part], extra)
            for i, each in enumerate(part):
                kept = found.map is not None and pixel
                yield _Row(float(found.score[i]), found.map[i] if kept else None, each.mask if pixel else None, each.label)


def synthetic_anomalies(image: np.ndarray, seed: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Two anomalies in a normal image, one of each way.

    Args:
      image: `[H, W, 3]` uint8, or float32 in [0, 1].
      seed: draws them.

    Returns:
      [(image `[H, W, 3]` float32 in [0, 1], mask `[H, W]` uint8 in {0, 1}, not empty), ...].
    """
    values = to_float(np.ascontiguousarray(image))
    pasted = cutpaste(np.random.default_rng((*seed, 0)), values)
    for attempt in range(100):
        blended, mask = perlin_anomaly(np.random.default_rng((*seed, 1, attempt)), values, draw_texture)
        if mask.any():
            return [pasted, (blended, mask)]
    return [pasted, cutpaste(np.random.default_rng((*seed, 2)), values)]
