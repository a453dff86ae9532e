"""GANomaly: anomalib's networks. Its losses and preprocessing are not the authors'; the pieces are compared."""

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses
from iadjax.cpu.dispatch import plain
from iadjax.detectors.families.adversarial import Networks
from iadjax.detectors.gan.ganomaly import Generator
from iadjax.detectors.gan.ganomaly import ganomaly as build
from iadjax.detectors.pytorch import from_torch
from iadjax.nn.dcgan import Discriminator
from tests.parity import harness
from tests.parity.harness import Card

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])


def test_anomalib():
    """Its first convolution pads by 4, extra layers of the decoder have leaky ReLUs, and images leave the decoder's range: the
    authors pad by 1, have ReLUs and images in [-1, 1]."""
    card = Card("anomalib_ganomaly")
    detector = build(width=8, latent=16, extra_layers=1)
    state = from_torch("ganomaly", card.tensors, harness.empty_state(detector, {}, 64))
    generator, discriminator = Generator(8, 16, 1, padding=4, slope=0.2), Discriminator(8, 1, padding=4)
    x, valid = jnp.asarray((card["image"] - MEAN) / STD), np.ones(2, bool)

    def judge(variables, x):
        return jax.nn.sigmoid(discriminator.apply(variables, x, valid, mutable="batch_stats")[0][0])

    def of_generator(params, others):
        made, _ = generator.apply({"params": params, **others}, x, valid, mutable="batch_stats")
        restored, z, again = made
        scores = [judge(state.discriminator.variables, each) for each in (x, restored)]
        # anomalib's: outputs of the discriminator in place of features, smooth L1 of the latent vectors
        latent = jnp.where(jnp.abs(z - again) < 1, (z - again) ** 2 / 2, jnp.abs(z - again) - 0.5).mean()
        return 50 * jnp.abs(x - restored).mean() + latent + losses.mse(*(each[:, None] for each in scores)).mean(), restored

    def of_discriminator(variables, restored):
        return sum(-jnp.log(each).mean() for each in (judge(variables, x), 1 - judge(variables, restored))) / 2

    with plain():
        _, z, again = jax.jit(lambda v: generator.apply(v, x, None))(state.generator.variables)
        harness.close(losses.mse(z, again), card["score"], what="score")
        others = {"batch_stats": state.generator.variables["batch_stats"]}
        both = jax.jit(jax.value_and_grad(of_generator, has_aux=True))
        (loss, trained), gradients = both(state.generator.variables["params"], others)
        harness.close(loss, card["loss"], what="loss")
        harness.close(harness.nchw(trained)[..., ::4, ::4], card["fake"], what="fake")
        found = jax.jit(of_discriminator)(state.discriminator.variables, trained)
        harness.close(found, card["loss_discriminator"], what="loss_discriminator")
    card.check_gradients("ganomaly", {"generator": gradients})


def test_authors_losses():
    """Their code has no card. The losses of one update are those of the networks above by the paper's formulas."""
    detector = build(width=4, latent=6)
    state = Networks(*jax.jit(lambda: harness.initial_state(detector, {}, 32))())
    image = np.random.default_rng(0).random((3, 32, 32, 3), np.float32)
    x, valid = 2 * image - 1, np.ones(3, bool)
    _, info = harness.update(detector, state, {}, harness.batch_of(image))
    generator, discriminator = Generator(4, 6), Discriminator(4)
    made = jax.jit(lambda v: generator.apply(v, x, valid, mutable="batch_stats")[0])(state.generator.variables)
    restored, z, again = (np.asarray(each, np.float64) for each in made)
    judge = jax.jit(lambda v, x: discriminator.apply(v, x, valid, mutable="batch_stats")[0])
    pairs = [judge(state.discriminator.variables, each) for each in (x, made[0])]
    logits, features = zip(*((np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in pairs), strict=True)
    adversarial, contextual = np.mean((features[0] - features[1]) ** 2), np.mean(np.abs(x - restored))
    encoder = np.mean((z - again) ** 2)
    harness.close(info["loss_adversarial"], adversarial, what="eq. 1")
    harness.close(info["loss_contextual"], contextual, what="eq. 2")
    harness.close(info["loss_encoder"], encoder, what="eq. 3")
    harness.close(info["loss"], adversarial + 50 * contextual + encoder, what="eq. 4")
    entropy = (np.log1p(np.exp(-logits[0])) + np.log1p(np.exp(logits[1]))).mean() / 2
    harness.close(info["loss_discriminator"], entropy, what="cross entropy")
