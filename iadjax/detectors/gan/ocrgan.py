"""OCR-GAN: "Omni-frequency Channel-selection Representations for Unsupervised Anomaly Detection" (Liang et al., TIP 2023, arXiv
2203.00259).

An image is parted into its low and its high frequencies. Two U-Nets restore one part each, and at every level they choose how
much of each channel either of them keeps. A discriminator tells their sum from normal images, and from images with a pasted
piece.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.adversarial import Networks, begin_anew, copy_networks
from iadjax.detectors.families.gradient import init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.nn.dcgan import Encoder, about_one, check_square
from iadjax.nn.diffusion import noise_like
from iadjax.nn.layers import Conv, linear
from iadjax.nn.norms import BatchNorm
from iadjax.nn.transposed import ConvTranspose
from iadjax.synthesis.cutpaste import cutpaste

__all__ = ["ChannelSelection", "Discriminator", "Generator", "frequencies", "ocrgan"]

_normal = nn.initializers.normal(0.02)


class ChannelSelection(nn.Module):
    """Divides every channel of two branches between them (section III-C): `[B, h, w, C]` twice to the same."""

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        depth = x.shape[-1]
        hidden = max(depth // 2, 32)
        code = linear(hidden, depth, "fc")(jnp.mean(x + y, axis=(1, 2)))
        weights = nn.softmax(jnp.stack([linear(depth, hidden, f"fcs_{i}")(code) for i in range(2)]), axis=0)
        return x * weights[0, :, None, None], y * weights[1, :, None, None]


class Generator(nn.Module):
    """Two U-Nets (figure 2) that halve the image to one position, with channel selection after each halving.

    Attributes:
      width: channels of the first level; each further one has twice as many, up to eight times.
    """

    width: int

    @nn.compact
    def __call__(self, high: jax.Array, low: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Both parts of images, `[B, H, H, 3]`, H a power of two, to what is restored of each, in [-1, 1]."""
        branches = {"high": [high], "low": [low]}
        depth = int(math.log2(high.shape[1]))
        for level in range(depth):
            features, x = self.width * min(2**level, 8), {}
            for name, skips in branches.items():
                # the first level sees the image itself, and the last one has no norm
                skips[-1] = nn.leaky_relu(skips[-1], 0.2) if level else skips[-1]
                down = Conv(features, 4, 2, 1, bias=False, kernel_init=_normal, name=f"{name}_{level}_down")(skips[-1])
                middle = 0 < level < depth - 1
                x[name] = BatchNorm(about_one, name=f"{name}_{level}_down_norm")(down, valid) if middle else down
            chosen = ChannelSelection(name=f"select_{level}")(x["high"], x["low"])
            for skips, each in zip(branches.values(), chosen, strict=True):
                skips.append(each)
        return tuple(self._up(name, skips, valid) for name, skips in branches.items())

    def _up(self, name, skips, valid):
        """The decoder of one branch; `skips`: the inputs of its levels, then the output of the last one."""
        x = skips.pop()
        for level in reversed(range(1, len(skips))):
            features = skips[-1].shape[-1]
            up = ConvTranspose(features, bias=False, kernel_init=_normal, name=f"{name}_{level}_up")(nn.relu(x))
            up = BatchNorm(about_one, name=f"{name}_{level}_up_norm")(up, valid)
            x = jnp.concatenate([skips.pop(), up], axis=-1)
        return jnp.tanh(ConvTranspose(3, kernel_init=_normal, name=f"{name}_0_up")(nn.relu(x)))


class Discriminator(nn.Module):
    """DCGAN's encoder and a linear classifier: `[B, H, H, 3]` to logits `[B]`, positive for real images, and features `[B, D]`.

    Attributes:
      width, latent: see `nn.dcgan.Encoder`.
    """

    width: int
    latent: int

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        features = Encoder(self.width, self.latent, name="feat")(x, valid)
        # the authors' convolution of 3 x 3 sees one position
        logits = Conv(1, bias=False, kernel_init=_normal, name="classifier")(features[:, None, None])
        return logits[:, 0, 0, 0], features


def frequencies(image: jax.Array, saturated: bool = False) -> tuple[jax.Array, jax.Array]:
    """High and low frequencies of images `[B, H, W, 3]` in [0, 1] with even sides, by one level of a pyramid (section III-B).

    They are computed in 8 bits, as in the authors' code.

    Args:
      image: see above.
      saturated: high frequencies below 0 become 0.

    Returns:
      Two arrays like `image`; their sum is the image, if they are not saturated.
    """
    whole = jnp.round(255 * image)
    low = jnp.floor(ops.pyramid_up(jnp.floor(ops.pyramid_down(whole) + 0.5)) + 0.5)
    high = jnp.maximum(whole - low, 0) if saturated else whole - low
    return high / 255, low / 255


def ocrgan(
    *,
    width: int = 64,
    discriminator_width: int = 64,
    latent: int = 100,
    saturated: bool = False,
    noise: float = 0.0,
    cutout: int = 20,
    adversarial_weight: float = 1.0,
    contextual_weight: float = 50.0,
    latent_weight: float = 1.0,
    feature_fraction: float = 0.1,
    epochs: int = 200,
    learning_rate: float = 2e-4,
    beta1: float = 0.5,
) -> Detector:
    """Builds OCR-GAN.

    Map: squared difference of image and restored image, the mean over colours.

    The authors' code (github.com/zhangzjn/OCR-GAN, MIT) has scores alone; the map is the part of the score that has positions.
    Four things of it are not followed. Its layers of channel selection are drawn anew in every pass and never trained; here
    they are trained. Images with a pasted piece have another mean than normal ones, which gives them away; here they have the
    same. Its discriminator leaves training mode after the first epoch. Scores are scaled by the least and the largest of the
    test set; here they depend on one image alone.

    Args:
      width: channels of the first level of both U-Nets.
      discriminator_width, latent: channels of the discriminator's first convolution, and length of its features.
      saturated: whether high frequencies below 0 are lost, as in the authors' code, which subtracts in unsigned 8 bits. Then
        the sum of both parts is the larger of image and low frequencies, so that thin dark defects are not seen.
      noise: deviation of the noise on both parts in training. The authors' code has a place for it and draws none.
      cutout: side of the black square in images with a pasted piece, in pixels.
      adversarial_weight, contextual_weight, latent_weight: of the generator's three losses.
      feature_fraction: lambda: the score is (1 - lambda) times the mean squared error of the image plus lambda times that of
        the discriminator's features.
      epochs: passes over the images.
      learning_rate, beta1: of both Adam optimisers.

    Raises:
      UserError: an option out of its range; in fitting: images that are not square with a power of two as side, at least 8.
    """
    check_options("[1, inf)", width=width, discriminator_width=discriminator_width, latent=latent, epochs=epochs)
    weights = {"adversarial_weight": adversarial_weight, "contextual_weight": contextual_weight, "latent_weight": latent_weight}
    check_options("[0, inf)", noise=noise, cutout=cutout, learning_rate=learning_rate, **weights)
    check_options("[0, 1]", feature_fraction=feature_fraction)
    check_options("[0, 1)", beta1=beta1)
    generator, discriminator = Generator(width), Discriminator(discriminator_width, latent)
    optimizer = optax.adam(learning_rate, b1=beta1)
    # with deviation 1/2 and, where they cannot be negative, mean 1/2
    mean = 0.5 if saturated else 0.0

    def parts(image):
        """Both parts as the networks see them; their sum is the image."""
        high, low = frequencies(image, saturated)
        return 2 * (high - mean), 2 * low - 1

    def augment(rng, image, draw):
        del draw
        pasted = cutpaste(rng, image)[0]
        # a square may leave the image
        centre = [int(rng.integers(side)) for side in image.shape[:2]]
        rows, columns = (slice(max(0, each - cutout // 2), each + cutout // 2) for each in centre)
        pasted[rows, columns] = 0
        return {"pasted": np.asarray(pasted, np.float32)}

    def init(key, frozen, spec):
        del frozen
        check_square("ocrgan", spec.image_shape, 8)
        keys, image = jax.random.split(key), jnp.zeros((1, *spec.image_shape))
        variables = generator.init(keys[0], image, image, None), discriminator.init(keys[1], image, None)
        return Networks(*(init_trained(each, optimizer) for each in variables))

    def update(key, state, frozen, batch):
        del frozen
        valid, keys = batch.valid, jax.random.split(key)
        high, low = parts(batch.image)
        x, pasted = high + low, 2 * (batch.extra["pasted"] - mean) - 1
        drawn = noise * noise_like(keys[0], x) if noise else jnp.zeros_like(x)

        def restore(variables):
            made, changed = generator.apply(variables, high + drawn, low + drawn, valid, mutable="batch_stats")
            return sum(made), changed

        def judge(variables, restored):
            """Logits and features of the real and of the restored images, and the statistics, moved by both."""
            real, changed = discriminator.apply(variables, x, valid, mutable="batch_stats")
            fake, changed = discriminator.apply({**variables, **changed}, restored, valid, mutable="batch_stats")
            return real, fake, changed

        def of_generator(variables):
            restored, changed = restore(variables)
            (_, features), (logits, again), _ = judge(state.discriminator.variables, restored)
            each = {
                "adversarial": nn.softplus(-logits),
                "contextual": jnp.abs(x - restored).mean(axis=(1, 2, 3)),
                "latent": losses.mse(features, again),
            }
            found = {f"loss_{name}": losses.mean(values, valid) for name, values in each.items()}
            return sum(weight * part for weight, part in zip(weights.values(), found.values(), strict=True)), (changed, found)

        def of_discriminator(variables):
            restored = restore(state.generator.variables)[0]
            (real, features), (fake, again), changed = judge(variables, restored)
            # predictions never see a pasted piece: its statistics are not kept
            other = discriminator.apply(variables, pasted, valid, mutable="batch_stats")[0][0]
            values = nn.softplus(-real) + nn.softplus(fake) + nn.softplus(other)
            return losses.mean(values + latent_weight * losses.mse(features, again), valid), (changed, {})

        # both from the state before, as in the authors' code
        made, info = train_step(state.generator, of_generator, optimizer)
        judging, other = train_step(state.discriminator, of_discriminator, optimizer)
        judging = begin_anew(judging, other["loss"], keys[1])
        return Networks(made, judging), {**info, "loss_discriminator": other["loss"]}

    def predict(state, frozen, batch):
        del frozen
        high, low = parts(batch.image)
        x, restored = high + low, sum(generator.apply(state.generator.variables, high, low, None))
        features = [discriminator.apply(state.discriminator.variables, each, None)[1] for each in (x, restored)]
        maps = jnp.mean((x - restored) ** 2, axis=-1)
        score = (1 - feature_fraction) * jnp.mean(maps, axis=(1, 2)) + feature_fraction * losses.mse(*features)
        return Prediction(score, maps)

    phase = Phase("train", update, epochs=epochs, augment=augment)
    return Detector(init, lambda spec: (phase,), predict, warm_start=copy_networks)
