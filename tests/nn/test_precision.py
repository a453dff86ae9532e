"""bfloat16 products: parameters stay float32, and scores within 2 % of their spread."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import iadjax
from iadjax.config import base_config
from iadjax.detector import Batch
from iadjax.errors import UserError

# of the largest difference between scores; bfloat16 keeps 8 bits
TOLERANCE = 0.02


def config_of(detector, tree, precision):
    config = base_config(detector, "folder")
    config.data.update({"root": str(tree), "resize": 64, "batch_size": 4})
    config.backbone.update({"name": "resnet18", "weights": "random"})
    config.threshold.holdout = 0.0
    config.precision = precision
    if detector == "patchcore":
        config.detector.coreset_ratio = 1.0
    else:
        config.detector.epochs = 2
    return config


@pytest.fixture(autouse=True)
def flax_promotion():
    """Flax's modules promote bfloat16 kernels by themselves."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def scores(detector, state, frozen, image):
    batch = Batch(image, detector.embed(frozen, image), None, None, {}, None)
    return detector.predict(state, frozen, batch)


@pytest.mark.parametrize("detector", ["patchcore", pytest.param("rd4ad", marks=pytest.mark.slow)])
def test_scores_stay_near_those_of_float32(detector, tree, tmp_path):
    runs = {
        precision: iadjax.fit(config_of(detector, tree, precision), tmp_path / precision)
        for precision in ("float32", "bfloat16")
    }
    half = runs["bfloat16"]
    assert {leaf.dtype for leaf in jax.tree.leaves(half.state)} <= {jnp.dtype("float32"), jnp.dtype("int32")}
    image = np.random.default_rng(0).random((6, 64, 64, 3), np.float32)
    image[3:] *= np.linspace(0, 1, 64, dtype=np.float32)[:, None]
    # the same state, so that what differs is the arithmetic and not where training went
    rounding = jax.jit(functools.partial(scores, half.detector))
    exact = jax.device_get(scores(runs["float32"].detector, half.state, half.frozen, image))
    rounded = jax.device_get(rounding(half.state, half.frozen, image))
    assert rounded.map.dtype == np.float32
    assert 0 < np.abs(rounded.score - exact.score).max() <= TOLERANCE * np.ptp(exact.map)
    assert np.abs(rounded.map - exact.map).max() <= TOLERANCE * np.ptp(exact.map)
    text = rounding.lower(half.state, half.frozen, image).as_text()
    assert "bf16" in text
    # training: a weight that starts the same moves the same way, but not by the same bits
    if detector == "rd4ad":
        first, second = (jax.tree.leaves(run.state.variables["params"]) for run in runs.values())
        distance = max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True))
        assert distance > 0


def test_an_unknown_precision_is_refused(tree, tmp_path):
    with pytest.raises(UserError, match="no precision 'float16'"):
        iadjax.fit(config_of("patchcore", tree, "float16"), tmp_path / "run")
