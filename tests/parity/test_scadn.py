"""SCADN: the authors' networks, losses and error map."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.cpu.dispatch import plain
from iadjax.detectors.gan.scadn import Discriminator, Generator, scadn
from iadjax.detectors.pytorch import from_torch
from iadjax.synthesis.stripes import striped_masks
from tests.parity import harness
from tests.parity.harness import Card

# much of the time would go into compiling
QUICKLY = {"compiler_options": {"xla_backend_optimization_level": 0}}


def test_authors():
    """The card's discriminator does not change: it divides its kernels by the norms that the vectors give."""
    card = Card("scadn")
    detector = scadn(blocks=2, stripes=(8,))
    state = from_torch("scadn", card.tensors, harness.empty_state(detector, {}, 64))
    masks, image = card["input/masks"], jnp.asarray(card["image"])
    # the other half of the stripes comes first there
    np.testing.assert_array_equal(striped_masks((64, 64), 8)[[1, 0, 3, 2]], masks)
    generator, discriminator = Generator(64, 2), Discriminator(64)

    def inpaint(params, mask):
        hidden = jnp.asarray(mask)[None, ..., None]
        return generator.apply({"params": params}, image * (1 - hidden) + hidden)

    def of_generator(params, judge):
        restored, hidden = inpaint(params, masks[0]), jnp.asarray(masks[0])[None, ..., None]
        real, fake = (discriminator.apply(judge, x, False) for x in (image, restored))
        back, masked = (jnp.mean(((restored - image) * part) ** 2) for part in (1 - hidden, hidden))
        gan, judged = 1e-3 * nn.softplus(-fake).mean(), (nn.softplus(-real).mean() + nn.softplus(fake).mean()) / 2
        return (back + 4 * masked) / hidden.mean() + gan, (restored, real, back, masked, gan, judged)

    def outputs(state):
        return inpaint(state.generator.variables["params"], masks[3]), detector.predict(
            state, {}, harness.batch_of(card["image"])
        )

    with plain():
        last, found = jax.jit(outputs, **QUICKLY)(state)
        both = jax.jit(jax.value_and_grad(of_generator, has_aux=True), **QUICKLY)
        (loss, (first, real, back, masked, gan, judged)), gradients = both(
            state.generator.variables["params"], state.discriminator.variables
        )
    card.check("inpainted0", harness.nchw(first))
    card.check("inpainted3", harness.nchw(last))
    card.check("error_map", found.map)
    card.check("score", found.score)
    card.check("dis_real", nn.sigmoid(real)[:, None])
    ours = {"loss": loss, "loss_back": back, "loss_masked": masked, "loss_gen_gan": gan, "loss_discriminator": judged}
    for name, value in ours.items():
        harness.close(value, card[name], what=name)
    card.check_gradients("scadn", {"generator": gradients})
