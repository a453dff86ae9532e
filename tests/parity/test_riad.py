"""RIAD: the known re-implementation's U-Net, maps, losses and gradients.

The card's notes say that the median has zeros outside; its numbers are those of mirrored pixels, as kornia has them.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from iadjax import ops
from iadjax.detectors.autoencoder.riad import InpaintingUNet, inpainted, riad
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

SIDES = (4, 8)


@pytest.fixture(scope="module")
def built():
    """The card, the detector, and its state with the card's tensors and sets of cells."""
    card = Card("riad")
    detector = riad(cell_sides=SIDES, cell_weights=True, window=1, sigma=7.0, weight_decay=0.0)
    state = from_torch("riad", card.tensors, harness.empty_state(detector, {}, 64))
    cells = {f"side{side}": jnp.asarray(card.arrays[f"input/cells_k{side}"], jnp.int32) for side in SIDES}
    return card, detector, state._replace(variables={**state.variables, "cells": cells})


def pixels(card, side):
    """The number of the set of each pixel; the card's cells are 8-bit numbers and no image."""
    return np.kron(card.arrays[f"input/cells_k{side}"], np.ones((side, side), np.uint8))[None]


def test_maps(built):
    card, detector, state = built
    network = InpaintingUNet(64)
    variables = {name: part for name, part in state.variables.items() if name != "cells"}
    x = jnp.asarray(2 * card["image"] - 1)

    @jax.jit
    def program(variables, x):
        restored = [
            inpainted(lambda images: (network.apply(variables, images), ()), x, jnp.asarray(pixels(card, side)), 3)[0]
            for side in SIDES
        ]
        return network.apply(variables, x), restored, [ops.msgms_map(x, each, median=True, pad=False) for each in restored]

    unet, restored, maps = program(variables, x)
    card.check("unet", harness.nchw(unet))
    for side, image, each in zip(SIDES, restored, maps, strict=True):
        card.check(f"reconstruction_k{side}", harness.nchw(image))
        # the code takes one from the sum of the four maps and then divides by 4: 3/4 less than one minus their mean
        card.check(f"msgms_score_k{side}", np.asarray(each)[:, None] - 0.75)
    truth = sum(
        ndimage.gaussian_filter(np.asarray(each, np.float64), (0, 7, 7)) / (64 / side) ** 2
        for side, each in zip(SIDES, maps, strict=True)
    )
    offset = sum(0.75 / (64 / side) ** 2 for side in SIDES)
    card.check("map", truth - offset)
    found = harness.predict(detector, state, {}, card["image"])
    harness.close(found.map, truth, what="map")


@pytest.mark.slow
def test_loss_and_gradients(built):
    card, detector, state = built
    batch = harness.batch_of(card["image"], cells=np.repeat(pixels(card, 16), 2, axis=0))
    new, info = harness.update(detector, state, {}, batch)
    for ours, theirs in (("loss_l2", "loss_mse"), ("loss_msgms", "loss_msgms"), ("loss_ssim", "loss_ssim"), ("loss", "loss")):
        harness.close(info[ours], card[theirs], what=theirs)
    card.check_gradients("riad", harness.gradients(new))
