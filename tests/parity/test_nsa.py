"""NSA: the authors' network, loss and gradients."""

import numpy as np
import pytest

from iadjax.detectors.autoencoder.nsa import nsa
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


@pytest.fixture(scope="module")
def built():
    card = Card("nsa")
    detector = nsa()
    return card, detector, from_torch("nsa", card.tensors, harness.empty_state(detector, {}, 64))


def test_maps(built):
    card, detector, state = built
    found = harness.predict(detector, state, {}, card["image"])
    card.check("map", np.asarray(found.map)[:, None])
    card.check("score", found.score)


@pytest.mark.slow
def test_loss_and_gradients(built):
    card, detector, state = built
    batch = harness.batch_of(card["image"], augmented=card["image"], target=card["input/label"][:, 0])
    new, info = harness.update(detector, state, {}, batch)
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("nsa", harness.gradients(new))
