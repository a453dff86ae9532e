"""A fitted detector and what it was fitted with."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from iadjax import config as configs
from iadjax import data, progress
from iadjax.data import Item, Transform, tiling
from iadjax.data.images import to_float, unit_range
from iadjax.detector import Detector, Frozen, Prediction, State
from iadjax.errors import UserError
from iadjax.parallel import distributed, placement
from iadjax.parallel.jit import jit_predict

__all__ = ["Run", "predict_images"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A fitted detector.

    Attributes:
      config: the resolved config.
      workdir: where the run lives.
      detector, state, transform: what predicts.
      frozen: variables of the backbone.
      ready: the same as programs take them, see `frozen.precompute`.
      weights: record of the backbone's weights: name, tag or file, content hash.
      threshold: {"name", "value", ...} of the decision rule `score >= value`, or None if none was fitted.
      devices: what predicts where.
    """

    config: dict[str, Any]
    workdir: Path
    detector: Detector
    state: State
    frozen: Frozen
    ready: Frozen
    transform: Transform
    weights: dict[str, str]
    threshold: dict[str, Any] | None = None
    devices: placement.Devices = placement.Devices(None)

    @functools.cached_property
    def data(self) -> configs.Data:
        """The images of the config; read from disk when first asked for."""
        return configs.build_data(self.config)

    def predict_batch(self, image: np.ndarray) -> Prediction:
        """Scores of images that are resized and cropped already; one program per shape and type.

        Args:
          image: `[B, H, W, 3]` uint8, or float32 in [0, 1]; the same in every process.
        """
        if self.devices.mesh is None:
            return self._predict_rows(image)
        index, count = distributed.process()
        number, rows = len(image), -(-len(image) // self.devices.count) * self.devices.count // count
        padded = np.concatenate([image, np.zeros((rows * count - number, *image.shape[1:]), image.dtype)])
        return jax.tree.map(lambda x: x[:number], self._predict_rows(padded[index * rows : (index + 1) * rows]))

    def _predict_rows(self, image: np.ndarray) -> Prediction:
        """Scores of all rows of a batch from this process's own ones."""
        program = _program(self.devices, self.detector.predict)
        with placement.use(self.devices):
            prediction = program(self.state, self.ready, placement.put_rows(self.devices, image))
        return prediction if self.devices.mesh is None else distributed.fetch(prediction)

    def predict(self, images: Sequence[np.ndarray | str | Path] | np.ndarray) -> Prediction:
        """Scores and maps of images as they are: files, or arrays `[H, W, 3]` uint8 or float in [0, 1].

        Returns:
          Prediction of NumPy arrays: score `[N]`, map `[N, h, w]` at the resolution of the network's input.
        """
        if self.transform.tile is None:
            batch_size = min(self.config["data"]["batch_size"], max(1, len(images)))
            return predict_images(images, self.transform.resample, batch_size, self.predict_batch)
        return predict_images(
            images, self.transform.resample, 1, lambda rows: jax.tree.map(lambda x: x[None], self.predict_whole(rows[0]))
        )

    def predict_whole(self, image: np.ndarray) -> Prediction:
        """Score and map of one image `[H, W, 3]` after resize and crop; in tiles where the config says so.

        The score of an image in tiles is that of its worst tile, its map is their maps blended (`data.tiling`).
        """
        tile, overlap = self.transform.tile, self.transform.overlap
        if tile is None:
            return jax.tree.map(lambda x: x[0], predict_padded([image], 1, self.predict_batch))
        size = image.shape[:2]
        where = tiling.positions(size, tile, overlap)
        batch = self.config["data"]["batch_size"]
        parts = [
            predict_padded(
                [tiling.cut(image, place, tile) for place in where[start : start + batch]], batch, self.predict_batch
            )
            for start in range(0, len(where), batch)
        ]
        scores, maps = (np.concatenate(each) for each in zip(*parts, strict=True))
        return Prediction(scores.max(), tiling.blend(maps, size, tile, overlap))

    def predict_items(self, items: Sequence[Item], name: str = "predict") -> Iterator[tuple[Item, float, np.ndarray]]:
        """Yields `(item, score, map [h, w])` of a split, in its order, by the input pipeline."""
        tile, overlap = self.transform.tile, self.transform.overlap
        seen, number, size = items, 1, None
        if tile is not None and items:
            size = data.whole_size(self.data.dataset, self.transform, items)
            seen, number = tiling.tiled(items, size, tile, overlap), len(tiling.positions(size, tile, overlap))
        rows: list[tuple[float, np.ndarray]] = []
        done = 0
        with progress.track(name, len(items), "image") as report:
            for row in self._predict_rows_of(seen):
                rows.append(row)
                if len(rows) < number:
                    continue
                item, score = items[done], max(score for score, _ in rows)
                if not np.isfinite(score):
                    raise UserError(f"the score of {item.path} is not finite; the detector has diverged")
                yield item, score, rows[0][1] if tile is None else tiling.blend([m for _, m in rows], size, tile, overlap)
                rows.clear()
                done += 1
                report(done, len(items))

    def _predict_rows_of(self, items: Sequence[Item]) -> Iterator[tuple[float, np.ndarray]]:
        """Score and map of every item (image or tile), in batches."""
        size = self.config["data"]["batch_size"]
        loader = data.batches(
            self.data.dataset,
            items,
            self.transform,
            size,
            workers=self.config["data"]["workers"],
            process=distributed.process(),
            multiple=self.devices.count,
            raw=True,
        )
        for start, batch in zip(range(0, len(items), size), loader, strict=True):
            prediction = jax.device_get(self._predict_rows(batch.image))
            for row in range(len(items[start : start + size])):
                yield float(prediction.score[row]), prediction.map[row]


@functools.lru_cache(maxsize=8)
def _program(devices: placement.Devices, predict: Callable) -> Callable:
    """`Detector.predict`, compiled once for all runs that share it."""

    def on_raw_images(state, frozen, image):
        return predict(state, frozen, unit_range(image))

    # its name in profiles and in `run.json`
    on_raw_images.__name__ = "predict"
    return jit_predict(devices, on_raw_images)


def predict_images(images: Sequence, transform: Callable, batch_size: int, predict: Callable) -> Prediction:
    """Scores and maps of images as they are, in batches of one size; see `Run.predict`."""
    parts, shape = [], None
    for start in range(0, len(images), batch_size):
        rows = [transform(_pixels(image)) for image in images[start : start + batch_size]]
        shape = shape or rows[0].shape
        if any(row.shape != shape for row in rows):
            raise UserError("the images differ in size after data.resize and data.crop; predict them one at a time")
        parts.append(predict_padded(rows, batch_size, predict))
    if not parts:
        raise UserError("there are no images to predict")
    return Prediction(*(np.concatenate(each) for each in zip(*parts, strict=True)))


def predict_padded(rows: Sequence[np.ndarray], batch_size: int, predict: Callable) -> Prediction:
    """Scores and maps of up to `batch_size` images of one shape as NumPy arrays; the batch is filled with zeros."""
    if len({row.dtype for row in rows}) > 1:
        # stacked as they are, 8 bits would stand as 0 to 255 beside deeper images in [0, 1]
        rows = [to_float(row) for row in rows]
    stacked = np.stack([*rows, *[np.zeros_like(rows[0])] * (batch_size - len(rows))])
    return jax.tree.map(lambda x: x[: len(rows)], jax.device_get(predict(stacked)))


def _pixels(image: np.ndarray | str | Path) -> np.ndarray:
    if isinstance(image, str | Path):
        return data.read_image(Path(image))
    image = np.asarray(image)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=-1)
    if image.ndim != 3 or image.shape[-1] != 3 or image.dtype.kind not in "uf":
        raise UserError(f"an image must be [H, W, 3] uint8 or float in [0, 1], got {image.dtype} of shape {image.shape}")
    return image if image.dtype == np.uint8 else image.astype(np.float32)
