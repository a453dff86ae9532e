"""OCR-GAN: the authors' networks, losses and score."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses
from iadjax.cpu.dispatch import plain
from iadjax.detectors.gan import ocrgan as module
from iadjax.detectors.pytorch import from_torch
from tests.parity import harness
from tests.parity.harness import Card

# most of the time would go into compiling
QUICKLY = {"compiler_options": {"xla_backend_optimization_level": 0}}

SMALL = {"width": 8, "discriminator_width": 8, "latent": 16}


def test_authors():
    """The card has the layers of channel selection by name, which the authors' code draws in every pass. Its images with a
    pasted piece have the mean 0, where normal ones have -1; the detector gives both the same mean, which its own test shows."""
    card = Card("ocrgan")
    detector = module.ocrgan(saturated=True, **SMALL)
    state = from_torch("ocrgan", card.tensors, harness.empty_state(detector, {}, 32))
    generator, discriminator = module.Generator(8), module.Discriminator(8, 16)
    high, low = module.frequencies(card["image"], saturated=True)
    for name, ours in (("high_uint8", high), ("low_uint8", low)):
        card.check(name, 255 * ours, tolerance=1e-6)
    high, low, pasted = (2 * jnp.asarray(each) - 1 for each in (high, low, card["image_aug"]))
    x, noise, valid = high + low, card["input/noise"].transpose(0, 2, 3, 1), np.ones(2, bool)

    def outputs(state):
        made = generator.apply(state.generator.variables, high, low, None)
        judged = [discriminator.apply(state.discriminator.variables, each, None) for each in (x, sum(made))]
        # one program for all, which is compiled once
        return made, judged[0][1], nn.sigmoid(judged[1][0]), detector.predict(state, {}, harness.batch_of(card["image"]))

    def of_generator(params, others):
        made, _ = generator.apply({"params": params, **others}, high + noise, low + noise, valid, mutable="batch_stats")
        restored, judge = sum(made), state.discriminator.variables
        (real, features), (fake, again), (other, _) = (
            discriminator.apply(judge, each, valid, mutable="batch_stats")[0] for each in (x, restored, pasted)
        )
        parts = nn.softplus(-fake).mean(), jnp.abs(restored - x).mean(), losses.mse(features, again).mean()
        judged = (nn.softplus(-real) + nn.softplus(fake) + nn.softplus(other)).mean() + parts[2]
        return parts[0] + 50 * parts[1] + parts[2], (*parts, judged)

    with plain():
        (fake_high, fake_low), features, judged, found = jax.jit(outputs, **QUICKLY)(state)
        others = {"batch_stats": state.generator.variables["batch_stats"]}
        both = jax.jit(jax.value_and_grad(of_generator, has_aux=True), **QUICKLY)
        (loss, parts), gradients = both(state.generator.variables["params"], others)
    card.check("fake_high", harness.nchw(fake_high))
    card.check("fake_low", harness.nchw(fake_low))
    card.check("feature_real", features[..., None, None])
    card.check("pred_fake", judged)
    card.check("score", found.score)
    for name, value in zip(("loss_adv", "loss_con", "loss_lat", "loss_discriminator", "loss"), (*parts, loss), strict=True):
        harness.close(value, card[name], what=name)
    card.check_gradients("ocrgan", {"generator": gradients})
