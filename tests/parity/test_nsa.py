"""NSA: the authors' network, loss and gradients."""

import numpy as np

from iadjax.detectors.autoencoder.nsa import nsa
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


def test_authors():
    card = Card("nsa")
    detector = nsa()
    state = from_torch("nsa", card.tensors, harness.empty_state(detector, {}, 64))
    found = harness.predict(detector, state, {}, card["image"])
    card.check("map", np.asarray(found.map)[:, None])
    card.check("score", found.score)
    batch = harness.batch_of(card["image"], augmented=card["image"], target=card["input/label"][:, 0])
    new, info = harness.update(detector, state, {}, batch)
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("nsa", harness.gradients(new))
