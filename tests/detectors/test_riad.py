"""RIAD: sets of cells, the inpainted image, statistics of each pass; tests/parity has the known code's numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.autoencoder.riad import InpaintingUNet, inpainted, riad
from iadjax.errors import UserError
from iadjax.synthesis.cells import disjoint_cells
from tests.direct import batch_of, predict, spec_for
from tests.parity import harness

pytestmark = pytest.mark.usefixtures("plain_convolutions")

KEY = jax.random.key(0)


def test_sets_are_disjoint_and_equal_in_size():
    cells = disjoint_cells(np.random.default_rng(0), (32, 48), 8, 3)
    assert cells.shape == (4, 6) and np.array_equal(np.bincount(cells.ravel()), [8, 8, 8])
    # 16 cells in three sets
    sizes = np.bincount(disjoint_cells(np.random.default_rng(0), (16, 16), 4, 3).ravel())
    assert sorted(sizes) == [5, 5, 6]
    assert not np.array_equal(cells, disjoint_cells(np.random.default_rng(1), (32, 48), 8, 3))


def test_no_pixel_sees_itself():
    """A network that passes its input on restores 0 everywhere: what it restores of a cell is hidden from it."""
    x = jnp.asarray(1 + np.random.default_rng(0).random((2, 16, 16, 3)), jnp.float32)
    cells = np.stack([np.kron(disjoint_cells(np.random.default_rng(i), (16, 16), 4, 3), np.ones((4, 4), int)) for i in (0, 1)])
    passed, seen = inpainted(lambda images: (images, images), x, jnp.asarray(cells), 3)
    np.testing.assert_array_equal(passed, 0)
    # each pass sees the others
    for i, images in enumerate(np.asarray(seen).reshape(2, 3, *x.shape[1:]).swapaxes(0, 1)):
        np.testing.assert_array_equal(images, np.where((cells == i)[..., None], 0, x))
    # and a network of ones restores every cell once
    np.testing.assert_array_equal(inpainted(lambda images: (jnp.ones_like(images), ()), x, jnp.asarray(cells), 3)[0], 1)


@pytest.fixture(scope="module")
def begun():
    detector = riad(width=2, depth=2, cell_sides=(4, 8), window=5)
    state = jax.jit(lambda: detector.init(KEY, {}, spec_for(detector, {}, 2, (32, 48, 3))))()
    return detector, state


def test_each_image_draws_its_side_and_prediction_keeps_its_sets(begun):
    detector, state = begun
    (phase,) = detector.phases(spec_for(detector, {}, 2, (32, 48, 3)))
    image, sides = np.zeros((32, 48, 3), np.float32), set()
    for seed in range(8):
        cells = phase.augment(np.random.default_rng(seed), image, None)["cells"]
        assert cells.shape == (32, 48) and cells.dtype == np.uint8
        blocks = cells.reshape(4, 8, 6, 8)
        sides.add(8 if np.all(blocks == blocks[:, :1, :, :1]) else 4)
    assert sides == {4, 8}
    kept = {name: np.bincount(np.ravel(cells)).tolist() for name, cells in state.variables["cells"].items()}
    assert kept == {"side4": [32, 32, 32], "side8": [8, 8, 8]}


@pytest.mark.slow
def test_running_statistics_are_the_mean_of_the_passes(begun):
    """BatchNorm normalises each pass by itself, and its running numbers move once in a step."""
    detector, state = begun
    image = np.random.default_rng(0).random((2, 32, 48, 3), np.float32)
    cells = np.kron(disjoint_cells(np.random.default_rng(0), (32, 48), 8, 3), np.ones((8, 8), np.uint8))
    batch = batch_of(detector, {}, image, extra={"cells": np.stack([cells, cells])})
    new, _ = harness.update(detector, state, {}, batch)
    network = {name: part for name, part in state.variables.items() if name != "cells"}
    conv = network["params"]["down1"]["conv1"]
    moments = []
    for i in range(3):
        x = np.where((cells == i)[..., None], 0, 2 * image - 1)
        y = jax.lax.conv_general_dilated(x, conv["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        moments.append(np.mean(np.asarray(y + conv["bias"][None, None, None], np.float64), axis=(0, 1, 2)))
    running = new.variables["batch_stats"]["down1"]["bn1"]["mean"]
    np.testing.assert_allclose(running, 0.1 * np.mean(moments, axis=0), rtol=1e-4, atol=1e-7)


def test_the_score_is_the_maximum_of_the_map(begun):
    detector, state = begun
    found = predict(detector, state, {}, np.random.default_rng(0).random((2, 32, 48, 3), np.float32))
    np.testing.assert_allclose(found.score, found.map.max((1, 2)))
    assert found.map.shape == (2, 32, 48) and float(found.map.min()) >= 0


def test_widths_are_those_of_the_re_implementation():
    shapes = jax.eval_shape(InpaintingUNet(64).init, KEY, jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32))["params"]
    assert shapes["down5"]["conv1"]["kernel"].shape == (4, 4, 512, 512)
    assert shapes["up1"]["conv1"]["kernel"].shape == (3, 3, 1024, 512)
    assert shapes["up4"]["upconv"]["transposed_kernel"].shape == (4, 4, 128, 64)


def test_bad_options_are_refused():
    for options, match in (
        ({"cell_sides": ()}, "cell_sides"),
        ({"num_sets": 1}, "num_sets at least 2"),
        ({"window": 4}, "window must be a positive odd number"),
        ({"sigma": -1.0}, "sigma"),
    ):
        with pytest.raises(UserError, match=match):
            riad(**options)
    detector = riad(width=2, cell_sides=(2, 24))
    with pytest.raises(UserError, match=r"multiples of 16 and of the sides of cells \(2, 24\)"):
        detector.init(KEY, {}, spec_for(detector, {}, 2, (64, 64, 3)))
