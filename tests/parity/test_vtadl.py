"""VT-ADL: the authors' code, whose mixture is no log-likelihood (`proper=False`); tests/detectors has the right one."""

import jax
import numpy as np
import pytest

from iadjax.cpu.dispatch import plain
from iadjax.detectors.pytorch import from_torch
from iadjax.detectors.transformer.vtadl import MixtureDensity, mixture_nll, vtadl
from iadjax.nn.capsules import Encoder, Restorer, capsule
from tests.parity import harness
from tests.parity.harness import Card

pytestmark = pytest.mark.slow


def test_authors():
    card = Card("vtadl")
    detector = vtadl(depth=1, hidden=64, gaussians=3, proper=False, noise=0.0, weight_decay=0.0)
    state = from_torch("vtadl", card.tensors, harness.empty_state(detector, {}, 512))
    params = state.variables["params"]
    restorer = Restorer((8, 8), (16, 32, 32, 16, 8), (3, 9, 7, 9, 6, 11), (2, 3, 5, 2, 1, 1), (1, 1, 1, 0, 0, 0))

    @jax.jit
    def program(params, statistics, image):
        tokens = Encoder(64, 512, 1, 8, 64).apply({"params": params["encoder"]}, image)
        own = {"params": params["restorer"], "batch_stats": statistics}
        restored, short = restorer.apply(own, tokens), capsule(tokens, own["params"]["capsule"])
        mixture = MixtureDensity(3).apply({"params": params["density"]}, tokens)
        return tokens, short, restored, mixture, mixture_nll(tokens, *mixture, proper=False)

    with plain():
        tokens, short, restored, mixture, nll = program(params, state.variables["batch_stats"], card["image"])
    card.check("encoded", tokens)
    card.check("capsule", np.asarray(short)[:, None])
    card.check("reconstruction", harness.nchw(restored))
    for name, found in zip(("pi", "mu", "sigma"), mixture, strict=True):
        card.check(name, found)
    card.check("token_nll", nll)
    new, info = harness.update(detector, state, {}, harness.batch_of(card["image"]))
    harness.close(info["loss_mse"], 5 * card["loss_mse"], what="loss_mse")
    harness.close(info["loss_ssim"], 0.5 * (1 + card["loss_minus_ssim"]), what="loss_ssim")
    harness.close(info["loss_nll"], card["loss_mdn"], what="loss_mdn")
    # ours has 1 - SSIM
    harness.close(info["loss"] - 0.5, card["loss"], what="loss")
    card.check_gradients("vtadl", harness.gradients(new))
