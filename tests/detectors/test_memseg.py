"""MemSeg: its memory, synthetic defects, refusals; tests/parity has the re-implementation's numbers."""

import jax
import numpy as np
import pytest

from iadjax.detectors.one_class.memseg import memory_distance, memseg
from iadjax.errors import UserError
from iadjax.synthesis.source import draw_texture
from iadjax.synthesis.structure import foreground_mask, shuffled_grid, structure_anomaly
from tests.direct import batch_of, spec_for
from tests.tiny import pyramid, pyramid_variables

SIZE, LAYERS = 32, ("layer1", "layer2", "layer3")


def built(layers=LAYERS, **options):
    backbone, frozen = pyramid(), {"backbone": pyramid_variables()}
    detector = memseg(backbone, layers=layers, width=4, steps=10, **options)
    spec = spec_for(detector, frozen, 4, (SIZE, SIZE, 3))
    return detector, frozen, spec, lambda: jax.jit(lambda key: detector.init(key, frozen, spec))(jax.random.key(1))


def test_the_memory_keeps_the_first_images_of_the_random_order():
    detector, frozen, spec, init = built(num_memory=3)
    image = np.random.default_rng(0).random((4, SIZE, SIZE, 3), np.float32)
    update, state = jax.jit(detector.phases(spec)[0].update), init()
    for start in (0, 2):
        valid = np.array([True, start == 2])
        state, _ = update(jax.random.key(0), state, frozen, batch_of(detector, frozen, image[start : start + 2], valid=valid))
    (level,) = pyramid().features(frozen["backbone"], image[[0, 2, 3]], LAYERS[1:2])
    np.testing.assert_allclose(state.memory[0].rows, level, rtol=1e-5, atol=1e-6)
    assert int(state.memory[0].count) == 3
    # more images than there is room for are left out
    state, _ = update(jax.random.key(0), state, frozen, batch_of(detector, frozen, image[:2]))
    np.testing.assert_allclose(state.memory[0].rows, level, rtol=1e-5, atol=1e-6)


def test_distance_is_the_sum_over_levels_of_the_mean_squared_difference():
    rng = np.random.default_rng(0)
    levels = [rng.normal(size=(2, s, s, c)).astype(np.float32) for s, c in ((4, 3), (2, 5))]
    memory = [rng.normal(size=(3, *x.shape[1:])).astype(np.float32) for x in levels]
    expected = sum(((x[:, None] - m[None]) ** 2).mean(axis=(2, 3, 4)) for x, m in zip(levels, memory, strict=True))
    np.testing.assert_allclose(memory_distance(levels, memory), expected, rtol=1e-5)


def test_pieces_change_places_and_none_is_lost():
    image = np.random.default_rng(0).random((17, 16, 3), np.float32)
    shuffled = shuffled_grid(np.random.default_rng(1), image, 4)
    pieces = [x[:16].reshape(4, 4, 4, 4, 3).swapaxes(1, 2).reshape(16, -1) for x in (image, shuffled)]
    assert np.array_equal(*(np.sort(each[:, 0]) for each in pieces)) and not np.array_equal(*pieces)
    assert np.array_equal(image[16], shuffled[16])


def test_defects_stay_within_the_object():
    image = np.full((64, 64, 3), 0.9, np.float32)
    image[16:48, 16:48] = 0.2
    image += np.random.default_rng(0).normal(0, 0.02, image.shape).astype(np.float32)
    dark = np.zeros((64, 64), bool)
    dark[16:48, 16:48] = True
    assert np.array_equal(foreground_mask(image, "dark"), dark) and np.array_equal(foreground_mask(image, "bright"), ~dark)
    assert foreground_mask(image, "all").all()
    drawn = 0
    for seed in range(20):
        changed, mask = structure_anomaly(np.random.default_rng(seed), image, draw_texture, foreground="dark")
        assert not mask[~dark].any() and np.array_equal(changed[mask == 0], image[mask == 0])
        drawn += mask.any()
    assert drawn > 5


def test_bad_options_are_refused():
    for options, match in (
        ({"layers": ("layer1", "layer2")}, "a stem, levels of the memory and a deepest level"),
        ({"foreground": "grey"}, "foreground"),
        ({"anomaly_prob": 1.5}, "anomaly_prob"),
    ):
        with pytest.raises(UserError, match=match):
            built(**options)
