"""Calling a detector's functions without the driver, for tests."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from iadjax.detector import Batch, DataSpec, Detector, Phase, Prediction, embed_shapes


def embed(detector: Detector, frozen, image):
    """`Detector.embed` as one compiled function; () for a detector without it."""
    return () if detector.embed is None else jax.jit(detector.embed)(frozen, jnp.asarray(image))


def spec_for(detector: Detector, frozen, number: int, shape: tuple[int, int, int], **fields) -> DataSpec:
    """A spec with the shapes of the detector's features."""
    features = embed_shapes(detector, frozen, shape)
    return DataSpec(number, shape, fields.pop("categories", ("a",)), **fields, features=features)


def batch_of(detector: Detector, frozen, image, *, label=None, valid=None, extra=None, category=None) -> Batch:
    """A batch of training images `[B, H, W, 3]` with empty masks."""
    number, zeros = len(image), np.zeros(len(image), np.int32)
    return Batch(
        image=jnp.asarray(image),
        features=embed(detector, frozen, image),
        category=zeros if category is None else category,
        index=np.arange(number, dtype=np.int32),
        extra={} if extra is None else extra,
        valid=np.ones(number, bool) if valid is None else np.asarray(valid),
        mask=np.zeros(image.shape[:3], np.uint8),
        label=zeros if label is None else np.asarray(label, np.int32),
    )


def padded_batches(detector: Detector, frozen, images: np.ndarray, batch_size: int) -> Iterator[Batch]:
    """A pass over images; what stands in padded rows of the last batch must not matter."""
    for start in range(0, len(images), batch_size):
        rows = images[start : start + batch_size]
        padding = np.full((batch_size - len(rows), *images.shape[1:]), 0.7, np.float32)
        yield batch_of(detector, frozen, np.concatenate([rows, padding]), valid=np.arange(batch_size) < len(rows))


def predict(detector: Detector, state, frozen, image) -> Prediction:
    """`Detector.predict` of images `[B, H, W, 3]`, as one compiled function."""
    batch = batch_of(detector, frozen, image)._replace(mask=None, label=None)
    return jax.jit(detector.predict)(state, frozen, batch)


def phases(detector: Detector) -> tuple[Phase, ...]:
    """The detector's phases for a data set of four images."""
    return detector.phases(DataSpec(4, (64, 64, 3), ("a",)))
