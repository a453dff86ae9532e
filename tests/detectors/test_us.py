"""US: dense networks against patches, moments against NumPy, and scores; tests/parity has a re-implementation's numbers."""

import jax
import numpy as np
import pytest

from iadjax.detectors.families.moments import merged, no_moments
from iadjax.detectors.teacher_student.us import us
from iadjax.errors import UserError
from iadjax.nn.patch_network import PatchNetwork
from tests.direct import batch_of, predict, spec_for
from tests.tiny import pyramid, pyramid_variables

BACKBONE, FROZEN = pyramid(), {"backbone": pyramid_variables()}
KEY = jax.random.key(0)


@pytest.mark.parametrize("size", [17, 33, 65])
def test_dense_descriptors_are_those_of_every_patch(size):
    network = PatchNetwork(size, 2, 3)
    # sides that the poolings do not divide, and two images
    image = np.random.default_rng(size).random((2, 11, 6, 3), np.float32)
    variables = jax.jit(network.init)(KEY, np.zeros((1, size, size, 3), np.float32))
    dense = jax.jit(lambda x: network.apply(variables, x, dense=True))(image)
    # zero outside the image means grey, which is 1/2 before the networks' own scale
    half = size // 2
    padded = np.pad(image, ((0, 0), (half, half), (half, half), (0, 0)), constant_values=0.5)
    patches = np.stack([padded[:, y : y + size, x : x + size] for y in range(11) for x in range(6)], axis=1)
    each = jax.jit(network.apply)(variables, patches.reshape(-1, size, size, 3))
    assert dense.shape == (2, 11, 6, 3)
    np.testing.assert_allclose(dense, each.reshape(dense.shape), atol=1e-5)
    assert np.std(np.asarray(dense), axis=(1, 2)).min() > 1e-3


def test_moments_do_not_depend_on_batches_and_padding():
    values = (1e3 + np.random.default_rng(0).standard_normal((5, 4, 3, 2))).astype(np.float32)
    moments = no_moments(2)
    for part, valid in ((values[:2], [True, True]), (values[2:4], [True, False]), (values[3:], [True, True])):
        moments = jax.jit(merged)(moments, part, np.array(valid))
    truth = values.astype(np.float64).reshape(-1, 2)
    assert float(moments.count) == 5
    np.testing.assert_allclose(moments.mean, truth.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(moments.variance, truth.var(axis=0), rtol=1e-3)


def test_phases_train_and_scale_the_map():
    options = {"layer": "layer1", "patch_sizes": (17,), "num_students": 2, "width": 2, "dimension": 4, "crops": 4}
    rates = {"learning_rate": 1e-2, "teacher_learning_rate": 1e-2, "compactness_weight": 0.1}
    detector = us(BACKBONE, **options, **rates)
    image = np.random.default_rng(0).random((2, 24, 24, 3), np.float32)
    spec = spec_for(detector, FROZEN, 2, (24, 24, 3))
    state = jax.jit(lambda key: detector.init(key, FROZEN, spec))(KEY)
    teacher, descriptors, students, calibrate = detector.phases(spec)
    crops = teacher.augment(np.random.default_rng(1), image[0], None)["crops_17"]
    assert crops.shape == (4, 17, 17, 3) and crops.dtype == np.float32
    own = us(BACKBONE, **options, teacher_images="train")
    mine = own.phases(spec)[0].augment(np.random.default_rng(1), image[0], None)["crops_17"]
    assert np.isin(mine, image[0]).all() and not np.isin(crops, image[0]).all()
    with pytest.raises(UserError, match="no patches of 17 pixels"):
        own.init(KEY, FROZEN, spec_for(detector, FROZEN, 2, (16, 16, 3)))
    flipped = students.augment(np.random.default_rng(3), image[0], None)["flipped"]
    assert not np.array_equal(flipped, image[0]) and np.isclose(flipped.sum(), image[0].sum())
    batch = batch_of(detector, FROZEN, image, extra={"crops_17": np.stack([crops, crops]), "flipped": image})
    losses = {}
    for name, phase, number in (("teacher", teacher, 8), ("descriptors", descriptors, 1), ("students", students, 8)):
        update = jax.jit(phase.update)
        for _ in range(number):
            state, info = update(KEY, state, FROZEN, batch)
            losses.setdefault(name, []).append(float(info.get("loss", 0)))
    assert losses["teacher"][-1] < losses["teacher"][0] and losses["students"][-1] < losses["students"][0]
    # the two students differ, and the first error is about d for a standardised target
    first, second = (jax.tree.leaves(state.students[0].variables)[-1][i] for i in (0, 1))
    assert not np.array_equal(first, second) and losses["students"][0] / 2 == pytest.approx(4, rel=0.5)
    state, _ = jax.jit(calibrate.update)(KEY, state, FROZEN, batch)
    found = predict(detector, state, FROZEN, image)
    # over the images that gave the moments, each of two standardised maps has mean 0
    assert abs(float(found.map.mean())) < 1e-3 and 0.5 < float(found.map.std()) < 2.1
    np.testing.assert_array_equal(found.score, found.map.max(axis=(1, 2)))


def test_refusals():
    with pytest.raises(UserError, match="patch_sizes must be some of 17, 33, 65"):
        us(BACKBONE, layer="layer1", patch_sizes=(19,))
    with pytest.raises(UserError, match="crops must be at least 2"):
        us(BACKBONE, layer="layer1", crops=1)
    detector = us(BACKBONE, layer="layer1", patch_sizes=(17,), decode=7)
    with pytest.raises(UserError, match="0 or the 24 channels of layer1, got 7"):
        detector.init(KEY, FROZEN, spec_for(detector, FROZEN, 2, (24, 24, 3)))
