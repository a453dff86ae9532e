"""InTra: the known re-implementation. Two of its slips are not ours and are put in here; tests/detectors has what is right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import ops
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.transformer import intra as module
from iadjax.detectors.transformer.intra import intra, msgms_map
from iadjax.nn.inpainter import Inpainter
from tests.parity import harness
from tests.parity.harness import Card

SIDE, LENGTH, GRID = 8, 3, 6


def corners(number, length):
    """Of the re-implementation: formulas for numbers from 1 get numbers from 0, so windows lie one patch too high."""
    first = np.maximum(1, np.arange(number) - length // 2)
    first -= np.maximum(0, first + length - number - 1)
    return np.clip(first - 1, 0, number - length)


def as_images(patches, side):
    """Of the re-implementation: patches that were flattened as (row, column, channel) are read as (channel, row, column)."""
    return jnp.moveaxis(patches.reshape(len(patches), 3, side, side), 1, -1)


@pytest.fixture(scope="module")
def built():
    card = Card("intra")
    detector = intra(
        side=SIDE,
        length=LENGTH,
        d=32,
        blocks=5,
        heads=4,
        msgms_weight=1.0,
        ssim_weight=1.0,
        subtract_mean=False,
        weight_decay=0.0,
    )
    return card, detector, from_torch("intra", card.tensors, harness.empty_state(detector, {}, SIDE * GRID))


def test_maps(built, monkeypatch):
    card, detector, state = built
    monkeypatch.setattr(module, "corners", corners)
    found = harness.predict(detector, state, {}, card["image"])
    for i in range(2):
        card.check(f"msgms_map{i}", np.asarray(found.map)[i : i + 1, None])
    # the window of the patch (1, 1) of the first image
    image = card["image"][:1]
    patches = image.reshape(GRID, SIDE, GRID, SIDE, 3).swapaxes(1, 2).reshape(GRID**2, -1)
    rows = np.array([0, 1, 2, 6, 8, 12, 13, 14], np.int32)
    network = Inpainter((GRID, GRID), 32, 5, 4)
    patch = jax.jit(network.apply)(state.trained.variables, patches[rows][None], rows[None], np.array([7], np.int32))
    card.check("patch", patch)


def test_loss_and_gradients(built, monkeypatch):
    card, detector, state = built
    monkeypatch.setattr(module, "as_images", as_images)
    corner, hole = np.array([[[0, 2]], [[3, 1]]], np.int32), np.array([[4], [7]], np.int32)
    span = SIDE * LENGTH
    window = [card["image"][i, SIDE * a : SIDE * a + span, SIDE * b : SIDE * b + span] for i, ((a, b),) in enumerate(corner)]
    batch = harness.batch_of(card["image"], window=np.stack(window)[:, None], corner=corner, hole=hole)
    new, info = harness.update(detector, state, {}, batch)
    harness.close(info["loss_l2"], card["loss_mse"], what="loss_mse")
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("intra", harness.gradients(new))


def test_the_map_is_that_of_the_channels():
    """In float64: 1 - GMS of each channel at three scales, enlarged."""
    x, y = np.random.default_rng(0).random((2, 1, 16, 16, 3))
    total = 0
    for scale in range(3):
        a, b = (each.reshape(1, 16 >> scale, 1 << scale, 16 >> scale, 1 << scale, 3).mean((2, 4)) for each in (x, y))
        g = []
        for each in (a, b):
            p = np.pad(each, ((0, 0), (1, 1), (1, 1), (0, 0)))
            rows, columns = (p[:, :-2] + p[:, 1:-1] + p[:, 2:]) / 3, (p[:, :, :-2] + p[:, :, 1:-1] + p[:, :, 2:]) / 3
            g.append(np.hypot(rows[:, :, :-2] - rows[:, :, 2:], columns[:, :-2] - columns[:, 2:]))
        gms = (2 * g[0] * g[1] + 0.0026) / (g[0] ** 2 + g[1] ** 2 + 0.0026)
        total = total + np.asarray(ops.resize(jnp.asarray(gms, jnp.float32), (16, 16)))
    truth = 1 - total.mean(-1) / 3
    harness.close(msgms_map(jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)), truth, what="map")
