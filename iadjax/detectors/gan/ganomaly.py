"""GANomaly: "GANomaly: Semi-Supervised Anomaly Detection via Adversarial Training" (Akcay et al., ACCV 2018, arXiv 1805.06725).

An encoder, a decoder and a second encoder learn to restore normal images and their latent vectors. A discriminator keeps the
restored images real. What the second encoder makes of a restored anomaly differs from what the first one made of the anomaly.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.adversarial import Networks, begin_anew, copy_networks
from iadjax.detectors.families.gradient import init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.nn.dcgan import Decoder, Discriminator, Encoder, check_square

__all__ = ["Generator", "ganomaly"]


class Generator(nn.Module):
    """G_E, G_D and E (figure 3), with the names of the authors' code.

    Attributes:
      width, latent, extra_layers: see `nn.dcgan.Encoder`.
      padding, slope: of the encoders' first convolution, and after the decoder's extra layers; anomalib has 4 and 0.2.
    """

    width: int
    latent: int
    extra_layers: int = 0
    padding: int = 1
    slope: float = 0.0

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Images `[B, H, H, 3]` in [-1, 1] to the restored ones and the vectors z and z' `[B, latent]`."""
        encoder = (self.width, self.latent, self.extra_layers, self.padding)
        z = Encoder(*encoder, name="encoder1")(x, valid)
        restored = Decoder(self.width, x.shape[1], self.extra_layers, self.slope, name="decoder")(z, valid)
        return restored, z, Encoder(*encoder, name="encoder2")(restored, valid)


def ganomaly(
    *,
    width: int = 64,
    latent: int = 100,
    extra_layers: int = 0,
    score: str = "squared",
    adversarial_weight: float = 1.0,
    contextual_weight: float = 50.0,
    encoder_weight: float = 1.0,
    epochs: int = 15,
    learning_rate: float = 2e-4,
    beta1: float = 0.5,
) -> Detector:
    """Builds GANomaly.

    Map: none, the score is of the whole image.

    The authors predict by statistics of the test batch, because their code leaves BatchNorm in training mode. Here the running
    statistics of training predict, so that a score does not depend on other images.

    Args:
      width: channels of the first convolution; each halving doubles them.
      latent: length of z.
      extra_layers: further convolutions of each network.
      score: "squared", the mean of (z - z')^2 as in the authors' code; "absolute", the mean of |z - z'|, which is eq. 5 up to
        a factor.
      adversarial_weight, contextual_weight, encoder_weight: of the three losses (eq. 4).
      epochs: passes over the images.
      learning_rate, beta1: of both Adam optimisers.

    Raises:
      UserError: an option out of its range; in fitting: images that are not square with a power of two as side, at least 16.
    """
    check_options("[1, inf)", width=width, latent=latent, epochs=epochs)
    weights = {"adversarial_weight": adversarial_weight, "contextual_weight": contextual_weight}
    check_options("[0, inf)", extra_layers=extra_layers, encoder_weight=encoder_weight, learning_rate=learning_rate, **weights)
    check_options("[0, 1)", beta1=beta1)
    if score not in ("squared", "absolute"):
        raise UserError(f"detector.score must be 'squared' or 'absolute', got {score!r}")
    generator, discriminator = Generator(width, latent, extra_layers), Discriminator(width, extra_layers)
    optimizer = optax.adam(learning_rate, b1=beta1)

    def init(key, frozen, spec):
        del frozen
        check_square("ganomaly", spec.image_shape, 16)
        keys, image = jax.random.split(key), jnp.zeros((1, *spec.image_shape))
        variables = generator.init(keys[0], image, None), discriminator.init(keys[1], image, None)
        return Networks(*(init_trained(each, optimizer) for each in variables))

    def judge(variables, x, valid):
        # always by statistics of the batch: the running ones are never read
        return discriminator.apply(variables, x, valid, mutable="batch_stats")[0]

    def update(key, state, frozen, batch):
        del frozen
        x, valid = 2 * batch.image - 1, batch.valid

        def of_generator(variables):
            (restored, z, again), changed = generator.apply(variables, x, valid, mutable="batch_stats")
            features = [judge(state.discriminator.variables, each, valid)[1] for each in (x, restored)]
            each = {
                # eq. 1: feature matching; eq. 2; eq. 3
                "adversarial": losses.mse(*features),
                "contextual": jnp.abs(x - restored).mean(axis=(1, 2, 3)),
                "encoder": losses.mse(z, again),
            }
            parts = {f"loss_{name}": losses.mean(values, valid) for name, values in each.items()}
            weighted = zip((adversarial_weight, contextual_weight, encoder_weight), parts.values(), strict=True)
            return sum(weight * part for weight, part in weighted), (changed, parts)

        def of_discriminator(variables):
            restored = generator.apply(state.generator.variables, x, valid, mutable="batch_stats")[0][0]
            real, fake = (judge(variables, each, valid)[0] for each in (x, restored))
            cross_entropy = (nn.softplus(-real) + nn.softplus(fake)) / 2
            return losses.mean(cross_entropy, valid), ({}, {})

        # both from the state before, as in the authors' code
        made, info = train_step(state.generator, of_generator, optimizer)
        judging, other = train_step(state.discriminator, of_discriminator, optimizer)

        judging = begin_anew(judging, other["loss"], key)
        return Networks(made, judging), {**info, "loss_discriminator": other["loss"]}

    def predict(state, frozen, batch):
        del frozen
        _, z, again = generator.apply(state.generator.variables, 2 * batch.image - 1, None)
        return Prediction(losses.mse(z, again) if score == "squared" else jnp.abs(z - again).mean(axis=1))

    return Detector(init, lambda spec: (Phase("train", update, epochs=epochs),), predict, warm_start=copy_networks)
