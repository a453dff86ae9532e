"""InversionAD: the authors' network, inversion, map, both parts of the score, and loss, on given features."""

import jax.numpy as jnp
import numpy as np
import pytest

from iadjax.detectors.diffusion import inversionad as module
from iadjax.detectors.pytorch import from_torch
from iadjax.nn.diffusion import noise_schedule, respaced
from tests.parity import harness
from tests.parity.harness import Card


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def case():
    card = Card("inversionad")
    backbone, frozen = harness.given([nhwc(card["input/features"])])
    options = {"layers": ("level0",), "stride": 4, "width": 32, "depth": 2, "heads": 4, "clip_norm": 0.0}
    detector = module.inversionad(backbone, **options)
    state = from_torch("inversionad", card.tensors, harness.empty_state(detector, frozen, 24))
    return card, detector, frozen, state


def test_authors(case):
    card, detector, frozen, state = case
    assert np.array_equal(respaced(1000, 3), card["out/timestep_map"])
    left = noise_schedule(1000).alpha_bar[respaced(1000, 3)]
    harness.close(left, card["out/alphas_cumprod"], 1e-6)
    harness.close([*left[1:], 0], card["out/alphas_cumprod_next"], 1e-6)
    image = np.zeros((2, 24, 24, 3), np.float32)
    # with moments of mean 0 and variance 1 the score is the sum of both parts
    unit = state._replace(scores=state.scores._replace(variance=jnp.ones(2)))
    found = harness.predict(detector, unit, frozen, image)
    card.check("map", found.map)
    # -log p up to its constant
    constant = 0.5 * np.log(2 * np.pi) * card["input/features"][0].size
    harness.close(found.score + constant, card["out/ats"] + card["out/nll"], what="score")
    # one part alone: the other one has no weight
    spread = state._replace(scores=state.scores._replace(variance=jnp.asarray([1.0, 1e20])))
    harness.close(harness.predict(detector, spread, frozen, image).score, card["out/ats"], what="ats")


def test_loss(case, monkeypatch):
    card, detector, frozen, state = case
    monkeypatch.setattr(module, "times_like", lambda key, x, low, high: jnp.asarray(card["input/t"], jnp.int32))
    monkeypatch.setattr(module, "noise_like", lambda key, x: nhwc(card["input/noise"]))
    new, info = harness.update(detector, state, frozen, harness.batch_of(np.zeros((2, 24, 24, 3), np.float32)))
    harness.close(info["loss"], card["loss"], what="loss")
    card.check_gradients("inversionad", harness.gradients(new))
