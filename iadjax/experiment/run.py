"""A fitted detector and what it was fitted with."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import config as configs
from iadjax import data, progress
from iadjax.data import Item, Transform, tiling
from iadjax.data.images import to_float, unit_range
from iadjax.detector import Batch, DataSpec, Detector, Frozen, Prediction, State
from iadjax.errors import UserError
from iadjax.experiment.images import as_images, as_pixels, check_batch, score_images
from iadjax.parallel import distributed, placement
from iadjax.parallel.jit import jit_predict

__all__ = ["Run"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A fitted detector. It predicts by `predict`, `predict_batch` and `predict_items`.

    Attributes:
      config: the resolved config.
      workdir: where the run lives.
      model: the detector, its frozen networks, the transform and the record of the weights.
      state: what fitting made.
      spec: what the detector knows of the data it was fitted on.
      threshold: {"name", "value", ...} of the decision rule `score >= value`, or None if none was fitted.
      devices: where predictions are computed.
    """

    config: dict[str, Any]
    workdir: Path
    model: configs.Model
    state: State
    spec: DataSpec
    threshold: dict[str, Any] | None = None
    devices: placement.Devices = placement.Devices(None)

    @property
    def detector(self) -> Detector:
        """The pure functions."""
        return self.model.detector

    @property
    def frozen(self) -> Frozen:
        """Variables of the frozen networks, by name."""
        return self.model.frozen

    @property
    def ready(self) -> Frozen:
        """The same as compiled functions take them, see `cpu.prepared.precompute`."""
        return self.model.ready

    @property
    def transform(self) -> Transform:
        """Resize and crop."""
        return self.model.transform

    @property
    def weights(self) -> dict[str, dict[str, str]]:
        """{network: {"name", "weights", "hash"}} of the frozen networks."""
        return self.model.weights

    @functools.cached_property
    def data(self) -> configs.Data:
        """The images of the config; read from disk when first asked for."""
        return configs.build_data(self.config, fitted=True)

    @functools.cached_property
    def precomputed(self) -> Any:
        """The state as predictions take it: `Detector.precompute` of it, once."""
        if self.detector.precompute is None:
            return self.state
        with placement.use(self.devices):
            return jax.jit(self.detector.precompute)(self.state, self.ready)

    def predict(self, images: Any, extra: Mapping[str, Iterable[np.ndarray]] | None = None) -> Prediction:
        """Scores and maps of images as users have them; `experiment.images.as_pixels` says what types and ranges mean.

        The detector is compiled for one image and for a batch of `data.batch_size`, whatever the number of images.

        Args:
          images: one image (a path, a Pillow image, an array `[H, W, 3]`), several `[B, H, W, 3]`, or any iterable of images.
          extra: what else the detector needs of each image (`Detector.inputs`), by name, at the image's resolution.

        Returns:
          Prediction of NumPy arrays: score `[N]`, map `[N, h, w]` at the resolution of the network's input, or None.

        Raises:
          UserError: an image or an input that is missing, unreadable, or of the wrong shape, type or range.
        """
        missing = [name for name in self.detector.inputs if name not in (extra or {})]
        if missing:
            raise UserError(f"this detector needs {', '.join(missing)} of every image; give it with extra={{...}}")
        pixels = (self.read(image, f"image {i}") for i, image in enumerate(as_images(images)))
        further = {name: (self.resample(name, value) for value in values) for name, values in (extra or {}).items()}
        if self.transform.tile is None:
            batch = self.config["data"]["batch_size"]
            return score_images(pixels, self.transform.resample, (1, batch), self.predict_batch, further)
        whole = []
        for number, image in enumerate(pixels):
            inputs = {name: next(values, None) for name, values in further.items()}
            if any(value is None for value in inputs.values()):
                raise UserError(f"extra holds {number} arrays, fewer than there are images")
            whole.append(self.score_image(self.transform.resample(image), inputs))
        if not whole:
            raise UserError("there are no images to predict")
        if len({each.map.shape for each in whole if each.map is not None}) > 1:
            raise UserError("the images differ in size after data.resize and data.crop; predict them one at a time")
        return jax.tree.map(lambda *each: np.stack(each), *whole)

    def read(self, image: Any, name: str = "an image") -> np.ndarray:
        """One image as `[H, W, 3]`, uint8 or float32 in [0, 1], see `experiment.images.as_pixels`."""
        return as_pixels(image, name, self.transform.read)

    def resample(self, name: str, value: np.ndarray) -> np.ndarray:
        """One of `Detector.inputs` of an image, at the network's input size."""
        value = np.asarray(value)
        if name != "xyz":
            return value
        if value.ndim != 3 or value.shape[-1] != 3:
            raise UserError(f"xyz of an image must be [H, W, 3], got {value.shape}; give a list with one for each image")
        return self.transform.points(value.astype(np.float32))

    def predict_batch(self, image: np.ndarray, extra: Mapping[str, np.ndarray] | None = None) -> Prediction:
        """Scores of images that are resized and cropped already; one compilation per shape and type.

        Args:
          image: `[B, H, W, 3]` uint8, or float32 in [0, 1]; the same in every process.
          extra: `{name: [B, ...]}`, of `Detector.inputs`.

        Raises:
          UserError: another shape or type.
        """
        check_batch(image)
        batch = self._batch(image, dict(extra or {}))
        if self.devices.mesh is None:
            return self._score(batch)
        number, (index, count) = len(image), distributed.process()
        size = -(-number // self.devices.count) * self.devices.count
        batch = jax.tree.map(lambda x: np.concatenate([x, np.zeros((size - number, *x.shape[1:]), x.dtype)]), batch)
        own = slice(index * size // count, (index + 1) * size // count)
        return jax.tree.map(lambda x: x[:number], self._score(jax.tree.map(lambda x: x[own], batch)))

    def _batch(self, image: np.ndarray, extra: dict[str, np.ndarray]) -> Batch:
        """A batch of images of no split."""
        number = len(image)
        if self.detector.prepare is not None:
            rows = [{name: values[i] for name, values in extra.items()} for i in range(number)]
            made = [self.detector.prepare(to_float(image[i]), row) for i, row in enumerate(rows)]
            extra = extra | {name: np.stack([each[name] for each in made]) for name in made[0]}
        # one of several categories, which is not known
        category = np.full(number, 0 if len(self.spec.categories) == 1 else -1, np.int32)
        return Batch(image, (), category, np.full(number, -1, np.int32), extra, np.ones(number, bool))

    def _score(self, batch: Batch) -> Prediction:
        """Scores of all rows of a batch from this process's own ones."""
        compiled = _compiled(self.devices, self.detector.embed, self.detector.predict)
        batch = batch._replace(mask=None, label=None)
        with placement.use(self.devices):
            prediction = compiled(self.precomputed, self.ready, placement.put_rows(self.devices, batch))
        return prediction if self.devices.mesh is None else distributed.fetch(prediction)

    def score_image(self, image: np.ndarray, extra: Mapping[str, np.ndarray] | None = None) -> Prediction:
        """Score and map of one image `[H, W, 3]` and its inputs after resize and crop; in tiles where the config says so.

        The score of an image in tiles is the largest score of a tile. Its map blends the maps of the tiles (`data.tiling`).
        """
        tile, overlap = self.transform.tile, self.transform.overlap
        extra = dict(extra or {})
        if tile is None:
            one = score_images([image], lambda x: x, (1,), self.predict_batch, {name: [value] for name, value in extra.items()})
            return jax.tree.map(lambda x: x[0], one)
        size, batch = image.shape[:2], self.config["data"]["batch_size"]
        where = tiling.positions(size, tile, overlap)
        tiles = [tiling.cut(image, position, tile) for position in where]
        cut = {name: [tiling.cut(value, position, tile) for position in where] for name, value in extra.items()}
        parts = score_images(tiles, lambda x: x, (batch,), self.predict_batch, cut)
        return self._joined(list(parts.score), parts.map, size)

    def _joined(self, scores: Sequence[float], maps: Sequence[np.ndarray] | None, size: tuple[int, int]) -> Prediction:
        """The score and map of an image from those of its tiles."""
        localises = maps is not None and maps[0] is not None
        whole = tiling.blend(maps, size, self.transform.tile, self.transform.overlap) if localises else None
        return Prediction(np.float32(max(scores)), whole)

    def predict_items(self, items: Sequence[Item], name: str = "predict") -> Iterator[tuple[Item, float, np.ndarray | None]]:
        """Yields `(item, score, map [h, w] or None)` of a split, in its order, by the input pipeline.

        Args:
          items: the whole split: `Batch.index` is the position in it.
          name: of the progress bar.
        """
        tile, overlap = self.transform.tile, self.transform.overlap
        seen, number, size = items, 1, None
        if tile is not None and items:
            size = data.whole_size(self.data.dataset, self.transform, items)
            seen, number = tiling.tiled(items, size, tile, overlap), len(tiling.positions(size, tile, overlap))
        rows: list[tuple[float, np.ndarray | None]] = []
        done = 0
        with progress.track(name, len(items), "image") as report:
            for row in self._rows_of(seen):
                rows.append(row)
                if len(rows) < number:
                    continue
                item, (scores, maps) = items[done], zip(*rows, strict=True)
                if not np.isfinite(max(scores)):
                    raise UserError(f"the score of {item.path} is not finite; the detector has diverged")
                yield item, max(scores), maps[0] if tile is None else self._joined(scores, maps, size).map
                rows.clear()
                done += 1
                report(done, len(items))

    def _rows_of(self, items: Sequence[Item]) -> Iterator[tuple[float, np.ndarray | None]]:
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
            inputs=self.detector.inputs,
            prepare=self.detector.prepare,
        )
        for start, batch in zip(range(0, len(items), size), loader, strict=True):
            score, maps = jax.device_get(self._score(batch))
            for row in range(len(items[start : start + size])):
                yield float(score[row]), None if maps is None else maps[row]


@functools.lru_cache(maxsize=8)
def _compiled(devices: placement.Devices, embed: Callable | None, predict: Callable) -> Callable:
    """`Detector.predict` on images that may be uint8, compiled once for all runs that share it."""

    def on_raw_images(state, frozen, batch):
        image = unit_range(jnp.asarray(batch.image))
        features = () if embed is None else embed(frozen, image)
        return predict(state, frozen, batch._replace(image=image, features=features))

    # its name in profiles and in `run.json`
    on_raw_images.__name__ = "predict"
    return jit_predict(devices, on_raw_images)
