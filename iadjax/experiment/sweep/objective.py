"""What a search measures: held-out normal images against synthetic anomalies in the same images. No test image is read."""

from collections.abc import Iterator
from typing import Any

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
    normal = [data.read(run.data.dataset, item)[0] for item in items]
    made = [each for number, image in enumerate(normal) for each in synthetic_anomalies(image, (seed, number))]
    points = {name: [run.resample(name, run.data.dataset.points(item)) for item in items] for name in run.detector.inputs}
    extra = {name: [*values, *(each for each in values for _ in range(2))] for name, values in points.items()}
    shapes = {image.shape for image in normal}
    # images of several sizes have maps of several sizes where nothing resizes them
    prediction = _predict(run, [*normal, *(image for image, _ in made)], extra, one_size=len(shapes) == 1)
    scores = np.array([score for score, _ in prediction])
    labels = np.array([0] * len(normal) + [1] * len(made))
    if metric.startswith("image"):
        return float(metrics.image_metrics(scores, labels)[metric])
    if prediction[0][1] is None:
        raise UserError(f"--search_metric={metric} needs maps, and this detector has none; take image_auroc")
    masks = [np.zeros(image.shape[:2], np.uint8) for image in normal] + [mask for _, mask in made]

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for (_, found), mask in zip(prediction, masks, strict=True):
            yield run.transform.map_back(found, *mask.shape), run.transform.visible(mask)

    return float(pixel_metrics_within(run.config["evaluate"]["byte_budget"], pairs())[metric])


def _predict(run: Run, images: list[np.ndarray], extra: dict[str, list], one_size: bool) -> list[tuple[float, Any]]:
    """Score and map of every image."""
    if one_size:
        found = run.predict(images, extra)
        maps = [None] * len(images) if found.map is None else list(found.map)
        return list(zip(map(float, found.score), maps, strict=True))
    rows = []
    for number, image in enumerate(images):
        found = run.predict([image], {name: [values[number]] for name, values in extra.items()})
        rows.append((float(found.score[0]), None if found.map is None else found.map[0]))
    return rows


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
