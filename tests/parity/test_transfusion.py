"""TransFusion: the authors' code."""

import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.diffusion import transfusion as module
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card


@pytest.fixture(scope="module")
def case():
    card = Card("transfusion")
    detector = module.transfusion(width=32, multipliers=(1, 2), attended=1, blocks=1, steps=6)
    state = harness.empty_state(detector, {}, 16)
    return card, detector, from_torch("transfusion", card.tensors, state)


def test_maps(case):
    card, detector, state = case
    found = harness.predict(detector, state, {}, card["image"])
    card.check("map", np.asarray(found.map)[:, None])
    card.check("score", found.score)


def test_losses_and_gradients(case, monkeypatch):
    card, detector, state = case
    monkeypatch.setattr(module, "times_like", lambda key, x, low, high: jnp.asarray([3, 5]))
    mask, given = (card[f"input/{name}"].astype(np.float32) for name in ("mask", "given_mask"))
    appearance = mask[..., None] * (2 * card["input/appearance"].transpose(0, 2, 3, 1) - 1)
    extra = {"normal": 2 * card["image"] - 1, "mask": mask, "given": given, "appearance": appearance}
    new, info = harness.update(detector, state, {}, harness.batch_of(card["image"], **extra))
    for name in ("loss", "loss_anomaly", "loss_mask", "loss_normal", "loss_step"):
        harness.close(info[name], card[name], what=name)
    card.check_gradients("transfusion", harness.gradients(new))
