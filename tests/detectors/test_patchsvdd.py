"""Patch SVDD: dense embeddings equal those patch by patch, drawn pairs, nearest normal patches, maps, refusals."""

import jax
import numpy as np
import pytest

from iadjax import ops
from iadjax.cpu.dispatch import plain
from iadjax.detectors.one_class.patchsvdd import patchsvdd
from iadjax.errors import UserError
from iadjax.nn.patch_encoder import BigEncoder, SmallEncoder
from iadjax.synthesis.patch_pairs import SIDES, adjacent_patches, draw_pairs, jittered_patches
from tests.direct import batch_of, spec_for

# an odd side, so that patches do not end at the border
SIZE, OPTIONS = (44, 39), {"widths": (6, 8), "dimension": 5, "hidden": 7, "small_stride": 4, "big_stride": 6, "epochs": 1}
KEY = jax.random.key(0)


@pytest.fixture(autouse=True, scope="module")
def forms():
    """Winograd's form would take most of the time to compile; tests/nn/test_convolution.py holds it to the same."""
    with plain():
        yield


def built(**options):
    detector = patchsvdd(**{**OPTIONS, **options})
    return detector, detector.phases(spec_for(detector, {}, 3, (*SIZE, 3)))


@pytest.fixture(scope="module")
def begun():
    """A state before the first phase; those of all these settings are the same."""
    detector, _ = built()
    return jax.jit(lambda: detector.init(KEY, {}, spec_for(detector, {}, 3, (*SIZE, 3))))()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((3, *SIZE, 3), np.float32)


@pytest.fixture(scope="module")
def fitted(images, begun):
    """The detector, and the state after the passes of the mean image and of the bank."""
    (detector, phases), state = built(), begun
    for phase in (phases[0], phases[2]):
        update = jax.jit(phase.update)
        for part, valid in ((images[:2], [True, True]), (images[[2, 0]], [True, False])):
            state, _ = update(KEY, state, {}, batch_of(detector, {}, part, valid=valid))
        state = (phases[1] if phase is phases[0] else phase).finalize(KEY, state, {})
    return detector, state


@pytest.fixture(scope="module")
def embedded(images, fitted):
    """Of the training images, one by one."""
    return one_by_one(fitted[1], images.mean(axis=0), images)


def one_by_one(state, mean, images):
    """Embeddings `[N, h, w, D]` of small and of large patches, cut from the images."""
    params = state.variables["params"]
    images = images - mean

    def cut(side, stride):
        rows, columns = (range(0, size - side + 1, stride) for size in SIZE)
        found = np.stack([images[:, y : y + side, x : x + side] for y in rows for x in columns], axis=1)
        return found.reshape(-1, side, side, 3), (len(images), len(rows), len(columns), 5)

    def small(patches):
        return np.asarray(SmallEncoder((6, 8, 5)).apply({"params": params["small"]}, patches))[:, 0, 0]

    patches, shape = cut(12, 4)
    found = [small(patches).reshape(shape)]
    patches, shape = cut(24, 6)
    quarters = [small(patches[:, y : y + 12, x : x + 12]) for y in (0, 12) for x in (0, 12)]
    big = BigEncoder(7).apply({"params": params["big"]}, np.stack(quarters, axis=1).reshape(-1, 2, 2, 5))
    return [*found, np.asarray(big).reshape(shape)]


def test_dense_embeddings_are_those_of_the_patches(images, fitted, embedded):
    _, state = fitted
    np.testing.assert_allclose(state.mean, images.mean(axis=0), atol=1e-6)
    for memory, x in zip((state.small, state.big), embedded, strict=True):
        assert int(memory.rows) == x[..., 0].size
        np.testing.assert_allclose(memory.features[: int(memory.rows)], x.reshape(-1, 5), atol=1e-5)


def test_scores_and_maps_follow_the_formulas(images, fitted, embedded):
    detector, state = fitted
    tests = np.random.default_rng(1).random((2, *SIZE, 3), np.float32)
    maps = []
    found = one_by_one(state, images.mean(axis=0), tests)
    for x, normal, side, stride in zip(found, embedded, (12, 24), (4, 6), strict=True):
        normal = normal.reshape(-1, 5).astype(np.float64)
        distance = np.linalg.norm(x[..., None, :] - normal, axis=-1).min(axis=-1)
        total, count = np.zeros((2, *SIZE)), np.zeros(SIZE)
        for i in range(distance.shape[1]):
            for j in range(distance.shape[2]):
                where = slice(i * stride, i * stride + side), slice(j * stride, j * stride + side)
                total[:, *where] += distance[:, i, j, None, None]
                count[where] += 1
        # pixels behind the last patch take the nearest covered one
        rows, columns = (np.minimum(np.arange(size), (size - side) // stride * stride + side - 1) for size in SIZE)
        maps.append((total / np.maximum(count, 1))[:, rows][:, :, columns])
    both = detector, built(combine="sum")[0]
    # compiled together, because they differ in one operation
    predict = jax.jit(lambda state, batch: [each.predict(state, {}, batch) for each in both])
    found, added = predict(state, batch_of(detector, {}, tests))
    np.testing.assert_allclose(found.map, maps[0] * maps[1], rtol=1e-3)
    np.testing.assert_allclose(found.score, found.map.max(axis=(1, 2)), rtol=1e-6)
    np.testing.assert_allclose(added.map, maps[0] + maps[1], rtol=1e-3)


def test_pixels_between_patches_take_the_nearest_ones():
    found = ops.average_patches(np.array([[[1.0], [3.0]]], np.float32), 2, 6, (9, 2))[0, :, 0]
    np.testing.assert_allclose(found, [1, 1, 1, 1, 3, 3, 3, 3, 3])


def test_pairs_lie_where_they_say():
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        (y, x), (v, u), position = adjacent_patches(rng, (400, 400), 64)
        seen.add(position)
        if all(80 <= each <= 256 for each in (y, x)):
            for moved, direction in zip((v - y, u - x), SIDES[position], strict=True):
                assert moved == 0 if direction == 0 else 48 <= moved * direction < 64
        (y, x), (v, u) = jittered_patches(rng, (400, 400), 64)
        assert max(abs(v - y), abs(u - x)) <= 2 and (0 in (y, x) or 336 in (y, x) or (y, x) != (v, u))
    assert seen == set(range(8))
    image = rng.random((40, 30, 3), np.float32)
    patches, places, positions = draw_pairs(rng, image, 16, 50, 0.0)
    assert positions.shape == (50,) and patches.dtype == np.float32
    for four, where in zip(patches, places, strict=True):
        for patch, (y, x) in zip(four, where, strict=True):
            assert np.array_equal(patch, image[y : y + 16, x : x + 16])
    noised, places, _ = draw_pairs(rng, image, 16, 50, 0.02)
    plain = np.stack([[image[y : y + 16, x : x + 16] for y, x in four] for four in places])
    difference = noised - plain
    assert not difference[:, 2:].any()
    # one shift of each colour, and one number for each pixel
    np.testing.assert_allclose(difference[:, :2].std(axis=(2, 3)).mean(), 0.02, rtol=0.05)
    np.testing.assert_allclose(difference[:, :2].mean(axis=(2, 3)).std(), 0.02, rtol=0.2)


def test_a_step_has_finite_gradients_and_moves_the_last_layer_if_it_may(images, begun):
    # tests/parity has the default, in which the layer stays
    detector, phases = built(fixed_output=False, pairs=2)
    rng = np.random.default_rng(0)
    drawn = [phases[1].augment(rng, image, None) for image in images]
    extra = {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}
    # two equal patches, as at a corner: the distance of their embeddings has no gradient there
    extra["small"][:, 0, 3] = extra["small"][:, 0, 2]
    extra["small_corner"][:, 0, 3] = extra["small_corner"][:, 0, 2]
    batch = batch_of(detector, {}, images, extra=extra)
    new, info = jax.jit(phases[1].update)(KEY, begun, {}, batch)
    assert np.isfinite(info["loss"]) and all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(new))
    before, after = (each.trained.variables["params"]["classifier_small"]["fc3"] for each in (begun, new))
    assert not np.array_equal(before["kernel"], after["kernel"])
    assert not np.array_equal(before["bias"], after["bias"])


def test_bad_options_are_refused():
    for options, match in (
        ({"small_stride": 3}, "small_stride must be a positive multiple of 2"),
        ({"big_stride": 0}, "big_stride"),
        ({"combine": "max"}, "combine"),
        ({"widths": (0,)}, "widths"),
    ):
        with pytest.raises(UserError, match=match):
            patchsvdd(**options)
    with pytest.raises(UserError, match="at least 64 pixels on each side"):
        detector = patchsvdd()
        detector.init(KEY, {}, spec_for(detector, {}, 3, (64, 60, 3)))
