"""Other positions and colours of an image, by hand and by PIL."""

import numpy as np
from PIL import Image

from iadjax.synthesis.appearance import colour_jitter, varied

IMAGE = np.random.default_rng(0).random((16, 16, 3)).astype(np.float32)


def test_all_ways_come_up_as_often_as_they_should():
    turned = {np.ascontiguousarray(each).tobytes(): 0 for each in (IMAGE, IMAGE[::-1], IMAGE[:, ::-1])}
    turned |= {np.rot90(IMAGE, k).tobytes(): 0 for k in (1, 3)}
    other = 0
    for seed in range(2000):
        found = varied(np.random.default_rng(seed), IMAGE).tobytes()
        if found in turned:
            turned[found] += 1
        else:
            other += 1
    # 0.3 are recoloured; of the rest 0.7 are as they were, 0.1 lie on each side, 0.05 are turned each way
    expected = np.array([0.49, 0.07, 0.07, 0.035, 0.035])
    np.testing.assert_allclose(np.array(list(turned.values())) / 2000, expected, atol=0.03)
    assert abs(other / 2000 - 0.3) < 0.04


def test_nothing_changes_without_probability_and_sides_stay():
    np.testing.assert_array_equal(varied(np.random.default_rng(0), IMAGE, 0.0), IMAGE)
    wide = np.concatenate([IMAGE, IMAGE], axis=1)
    assert {varied(np.random.default_rng(seed), wide, 1.0).shape for seed in range(30)} == {(16, 32, 3)}
    found = [varied(np.random.default_rng(seed), IMAGE, 1.0) for seed in range(30)]
    assert all(each.dtype == np.float32 and each.min() >= 0 and each.max() <= 1 for each in found)
    # a third is grey
    grey = sum(np.ptp(each, axis=-1).max() < 1e-6 for each in found)
    assert 3 <= grey <= 18


def test_hue_is_turned_on_the_circle():
    red = np.zeros((2, 2, 3), np.float32)
    red[..., 0] = 1
    seen = {tuple(np.round(colour_jitter(np.random.default_rng(seed), red, 0.0, 0.5)[0, 0], 1)) for seed in range(40)}
    assert len(seen) > 20
    same = colour_jitter(np.random.default_rng(0), IMAGE, 0.0, 0.0)
    picture = Image.fromarray(np.round(255 * IMAGE).astype(np.uint8)).convert("HSV").convert("RGB")
    np.testing.assert_array_equal(same, np.asarray(picture, np.float32) / 255)
    np.testing.assert_allclose(same, IMAGE, atol=0.03)
