"""InTra: its windows, what it sees, the mean map; tests/parity has the known re-implementation's numbers."""

import jax
import numpy as np
import pytest

from iadjax.detectors.transformer.intra import corners, intra
from iadjax.errors import UserError
from tests.direct import batch_of, predict, spec_for
from tests.parity import harness

KEY, SHAPE = jax.random.key(0), (24, 32, 3)
TINY = {"side": 4, "length": 3, "d": 8, "blocks": 3, "heads": 2, "windows": 2, "pool_size": 3, "flip_prob": 0.0}


def test_windows_are_centred_but_at_the_border():
    """The known re-implementation begins each window one patch too early."""
    assert corners(16, 7).tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9]
    for number, length in ((6, 3), (7, 7)):
        first = corners(number, length)
        inside = np.arange(number) - first
        assert first.min() >= 0 and first.max() == number - length
        assert inside.min() >= 0 and inside.max() < length
        assert np.all(inside[(first > 0) & (first < number - length)] == length // 2)


@pytest.fixture(scope="module")
def begun():
    detector = intra(**TINY)
    state = jax.jit(lambda: detector.init(KEY, {}, spec_for(detector, {}, 2, SHAPE)))()
    return detector, state


def test_training_draws_windows_of_the_image_and_flips_it(begun):
    detector, _ = begun
    phase, _ = detector.phases(spec_for(detector, {}, 2, SHAPE))
    image = np.random.default_rng(0).random(SHAPE, np.float32)
    drawn = [phase.augment(np.random.default_rng(seed), image, None) for seed in range(30)]
    for each in drawn:
        for window, (row, column) in zip(each["window"], 4 * each["corner"], strict=True):
            np.testing.assert_array_equal(window, image[row : row + 12, column : column + 12])
    corner = np.concatenate([each["corner"] for each in drawn])
    assert corner.min() == 0 and corner.max(axis=0).tolist() == [3, 5]
    holes = np.concatenate([each["hole"] for each in drawn])
    assert (holes.min(), holes.max()) == (0, 8)
    phase, _ = intra(**{**TINY, "flip_prob": 1.0}).phases(spec_for(detector, {}, 2, SHAPE))
    each = phase.augment(np.random.default_rng(0), image, None)
    (row, column), window = 4 * each["corner"][0], each["window"][0]
    np.testing.assert_array_equal(window, image[:, ::-1][row : row + 12, column : column + 12])


def test_the_hidden_patch_is_not_seen(begun):
    """The loss of a window depends on the hidden patch as its target alone: it is a parabola along a line of targets."""
    detector, state = begun
    rng = np.random.default_rng(0)
    image = rng.random((2, *SHAPE), np.float32)
    window, hole = rng.random((2, 2, 12, 12, 3), np.float32), np.full((2, 2), 4, np.int32)
    phase, _ = intra(**TINY, msgms_weight=0.0, ssim_weight=0.0).phases(spec_for(detector, {}, 2, SHAPE))
    update = jax.jit(phase.update)

    def loss(level):
        changed = window.copy()
        changed[:, :, 4:8, 4:8] = level
        extra = {"window": changed, "corner": np.zeros((2, 2, 2), np.int32), "hole": hole}
        return float(update(KEY, state, {}, batch_of(detector, {}, image, extra=extra))[1]["loss_l2"])

    # the second difference of a parabola with leading coefficient 1 is 2 h^2
    assert loss(0.0) - 2 * loss(0.5) + loss(1.0) == pytest.approx(0.5, rel=1e-3)


def test_the_map_is_the_squared_distance_to_the_mean_map(begun):
    detector, state = begun
    image = np.random.default_rng(1).random((2, *SHAPE), np.float32)
    plain = intra(**TINY, subtract_mean=False)
    maps = np.asarray(predict(plain, state, {}, image).map, np.float64)
    _, phase = detector.phases(spec_for(detector, {}, 2, SHAPE))
    batch = batch_of(detector, {}, image, valid=[True, False])
    after, _ = jax.jit(phase.update)(KEY, state, {}, batch)
    # the padded row does not count
    np.testing.assert_allclose(after.mean, maps[0], rtol=1e-4, atol=1e-6)
    found = predict(detector, after, {}, image)
    np.testing.assert_allclose(found.map, (maps - maps[:1]) ** 2, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found.score, np.asarray(found.map).max((1, 2)))
    assert [phase.name for phase in plain.phases(spec_for(plain, {}, 2, SHAPE))] == ["train"]


def test_sizes_are_those_of_the_paper():
    state = harness.empty_state(intra(), {}, 256)
    params = state.trained.variables["params"]
    assert params["pos_embedding_glb"].shape == (256, 512)
    assert params["layers_12"]["MLP_q_0"]["kernel"].shape == (512, 1024)
    assert params["layers_12"]["MLP_q_2"]["kernel"].shape == (1024, 256)
    assert params["proj"]["kernel"].shape == (512, 768)


def test_bad_options_are_refused(begun):
    for options, match in (
        ({"length": 4}, "length must be a positive odd number"),
        ({"d": 20, "heads": 4}, "multiple of twice detector.heads"),
        ({"side": 6}, "detector.side one of 4"),
        ({"flip_prob": 2.0}, "flip_prob"),
    ):
        with pytest.raises(UserError, match=match):
            intra(**options)
    detector, _ = begun
    for shape in ((24, 30, 3), (8, 32, 3)):
        with pytest.raises(UserError, match="multiples of 4 and at least 12"):
            detector.init(KEY, {}, spec_for(detector, {}, 2, shape))
