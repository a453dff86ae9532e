"""NAME against its formulas in NumPy float64."""

import numpy as np
import pytest

import iadjax
from iadjax import backbones
from iadjax.config import base_config
from iadjax.errors import UserError
from iadjax.ops import gaussian_blur, resize


def test_score_and_map_are_those_of_the_formula(tmp_path):
    config = base_config("my_detector", "synthetic")
    config.data.update({"category": "washer", "resize": 48, "batch_size": 8})
    config.detector.layers = ("layer1",)
    run = iadjax.fit(config, tmp_path / "run")
    # the truth: every training image at once, in float64
    read = run.data.dataset.read
    images = np.stack([run.transform.image(read(item)[0]) for item in run.data.split.train])
    features = backbones.backbone("filter_bank").features({}, images, ("layer1",))[0]
    x = np.asarray(features, np.float64)
    mean, variance = x.mean(0), x.var(0, ddof=1) + 0.01
    image = np.random.default_rng(0).random((2, 48, 48, 3), np.float32)
    y = np.asarray(backbones.backbone("filter_bank").features({}, image, ("layer1",))[0], np.float64)
    distance = np.sqrt(((y - mean) ** 2 / variance).sum(-1))
    maps = gaussian_blur(resize(distance[..., None].astype(np.float32), (48, 48))[..., 0], 4.0)
    found = run.predict(image)
    np.testing.assert_allclose(found.map, maps, rtol=1e-3, atol=1e-3 * float(maps.max()))
    np.testing.assert_allclose(found.score, np.asarray(maps).max((1, 2)), rtol=1e-3)


def test_options_are_checked():
    config = base_config("my_detector", "synthetic")
    config.detector.epsilon = 0.0
    with pytest.raises(UserError, match="detector.epsilon must be above 0, got 0.0"):
        iadjax.config.outline_model(iadjax.config.resolve(config))
