"""SCADN: "Learning Semantic Context from Normal Samples for Unsupervised Anomaly Detection" (Yan et al., AAAI 2021).

Stripes hide half of an image. A generator restores it from the other half, and a discriminator keeps it real. Of each pixel it
sees the surroundings alone, at several widths of stripes, so that it cannot restore an anomaly.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.moments import running_mean
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.nn.layers import Conv
from iadjax.nn.norms import instance_norm
from iadjax.synthesis.stripes import striped_masks

__all__ = ["Discriminator", "Generator", "Inpainting", "scadn"]

_normal = nn.initializers.normal(0.02)
# how often generator and discriminator halve the grid
_HALVINGS = 3


class Inpainting(NamedTuple):
    """The state.

    Attributes:
      generator, discriminator: trained against each other.
      count: float32 scalar, training images whose errors were taken.
      errors: `[S]`, their mean error at each number of stripes.
    """

    generator: Trained
    discriminator: Trained
    count: jax.Array
    errors: jax.Array


def _reflected(x: jax.Array, pad: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")


class Generator(nn.Module):
    """The network of EdgeConnect (Nazeri et al., 2019), with the names of the authors' code.

    Attributes:
      width: channels of the first convolution; three halvings double them.
      blocks: residual blocks between encoder and decoder.
    """

    width: int
    blocks: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Images `[B, H, W, 3]` in [0, 1] to restored ones; H and W are multiples of 8, at least 24."""

        def conv(features, kernel, stride, padding, name):
            return Conv(features, kernel, stride, padding, kernel_init=_normal, bias_init=nn.initializers.zeros, name=name)

        x = nn.relu(instance_norm(conv(self.width, 7, 1, 0, "encoder_1")(_reflected(x, 3))))
        for i in range(1, _HALVINGS + 1):
            x = nn.relu(instance_norm(conv(2**i * self.width, 4, 2, 1, f"encoder_{3 * i + 1}")(x)))
        for i in range(self.blocks):
            name, depth = f"middle_{i}_conv_block", x.shape[-1]
            dilated = nn.Conv(depth, (3, 3), padding="VALID", kernel_dilation=2, kernel_init=_normal, name=f"{name}_1")
            y = nn.relu(instance_norm(dilated(_reflected(x, 2))))
            x += instance_norm(conv(depth, 3, 1, 0, f"{name}_5")(_reflected(y, 1)))
        for i in range(_HALVINGS):
            features, name = 2 ** (_HALVINGS - 1 - i) * self.width, f"decoder_{4 * i + 1}"
            x = nn.relu(instance_norm(conv(features, 3, 1, 1, name)(ops.block_repeat(x, 2))))
        x = conv(3, 7, 1, 0, f"decoder_{4 * _HALVINGS + 1}")(_reflected(x, 3))
        return (jnp.tanh(x) + 1) / 2


class Discriminator(nn.Module):
    """PatchGAN (Isola et al., CVPR 2017) with spectral normalisation (Miyato et al., ICLR 2018).

    Attributes:
      width: channels of the first convolution; three further ones double them.
    """

    width: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """`[B, H, W, 3]` to logits `[B, h, w]`, positive for real images; `train`: one power iteration for each kernel."""
        last = _HALVINGS + 2
        for i in range(1, last + 1):
            features = 2 ** (i - 1) * self.width if i < last else 1
            stride = 2 if i <= _HALVINGS else 1
            conv = Conv(features, 4, stride, 1, bias=False, name=f"conv{i}_0")
            x = nn.SpectralNorm(conv, epsilon=1e-12, name=f"norm{i}")(x, update_stats=train)
            x = nn.leaky_relu(x, 0.2) if i < last else x
        return x[..., 0]


def scadn(
    *,
    width: int = 64,
    blocks: int = 8,
    discriminator_width: int = 64,
    stripes: Sequence[int] = (4, 8, 16),
    hidden_weight: float = 4.0,
    adversarial_weight: float = 1e-3,
    merge: str = "largest",
    top: float = 1.0,
    epochs: int = 200,
    learning_rate: float = 1e-4,
    discriminator_rate: float = 1e-5,
    beta1: float = 0.0,
    beta2: float = 0.9,
) -> Detector:
    """Builds SCADN.

    Map: squared difference of image and restored image where it was hidden, the mean over colours.

    The constants are those of the authors' code (github.com/Xudong-Yan/SCADN, without a licence), which keeps the epoch of the
    least error on training images and has scores alone. Here the last epoch predicts.

    Args:
      width, blocks: channels of the generator's first convolution, and its residual blocks.
      discriminator_width: channels of the discriminator's first convolution.
      stripes: how many lie along a side, for each scale; each number is even.
      hidden_weight: of the squared error of hidden pixels; that of the others has the weight 1.
      adversarial_weight: of the discriminator in the generator's loss.
      merge: of the maps of all scales. "largest": for each image that of the scale whose mean error exceeds the one of
        training images most, as in the authors' code; "mean": each map over that mean error, then the mean over the scales,
        as in another function of it.
      top: the image's score is the mean of this fraction of its pixels, the largest ones; 1: of all, as in the authors' code.
      epochs: passes over the images.
      learning_rate, discriminator_rate, beta1, beta2: of the two Adam optimisers.

    Raises:
      UserError: an option out of its range; in fitting: sides of images that are no multiples of 8, or of the stripes, or are
        below 24.
    """
    numbers = tuple(stripes)
    if not numbers or any(each < 2 or each % 2 for each in numbers):
        raise UserError(f"detector.stripes must be positive even numbers, got {numbers}")
    if merge not in ("largest", "mean"):
        raise UserError(f"detector.merge must be 'largest' or 'mean', got {merge!r}")
    check_options("[1, inf)", width=width, blocks=blocks, discriminator_width=discriminator_width, epochs=epochs)
    check_options("[0, inf)", hidden_weight=hidden_weight, adversarial_weight=adversarial_weight)
    check_options("(0, inf)", learning_rate=learning_rate, discriminator_rate=discriminator_rate)
    check_options("[0, 1)", beta1=beta1, beta2=beta2)
    check_options("(0, 1]", top=top)
    generator, discriminator = Generator(width, blocks), Discriminator(discriminator_width)
    optimizers = [optax.adam(rate, b1=beta1, b2=beta2) for rate in (learning_rate, discriminator_rate)]

    def all_masks(size):
        return np.concatenate([striped_masks(size, number) for number in numbers])

    def augment(rng, image, draw):
        del draw
        masks = all_masks(image.shape[:2])
        return {"hidden": masks[rng.integers(len(masks))]}

    def init(key, frozen, spec):
        del frozen
        size = spec.image_shape[:2]
        if any(side % each for side in size for each in (8, *numbers)) or min(size) < 24:
            raise UserError(
                f"scadn needs sides of at least 24 that are multiples of 8 and of the stripes {numbers}, got {size}; set "
                "data.resize or detector.stripes"
            )
        keys, image = jax.random.split(key), jnp.zeros((1, *spec.image_shape))
        variables = generator.init(keys[0], image), discriminator.init(keys[1], image, False)
        trained = [init_trained(*pair) for pair in zip(variables, optimizers, strict=True)]
        return Inpainting(*trained, jnp.zeros(()), jnp.zeros(len(numbers)))

    def inpaint(variables, image, hidden):
        """`hidden [B or 1, H, W, 1]`: these pixels are white."""
        return generator.apply(variables, image * (1 - hidden) + hidden)

    def learn(key, state, frozen, batch):
        del key, frozen
        image, valid = batch.image, batch.valid
        hidden = batch.extra["hidden"][..., None].astype(image.dtype)

        def judge(variables, x):
            return discriminator.apply(variables, x, True, mutable="batch_stats")

        def of_generator(variables):
            restored = inpaint(variables, image, hidden)
            logits, _ = judge(state.discriminator.variables, restored)
            seen, unseen = (losses.mse(restored * part, image * part) for part in (1 - hidden, hidden))
            # nothing is hidden in padded rows
            fraction = jnp.maximum(jnp.mean(hidden, axis=(1, 2, 3)), 1e-3)
            each = {
                "reconstruction": (seen + hidden_weight * unseen) / fraction,
                "adversarial": adversarial_weight * jnp.mean(nn.softplus(-logits), axis=(1, 2)),
            }
            parts = {f"loss_{name}": losses.mean(values, valid) for name, values in each.items()}
            return sum(parts.values()), ({}, parts)

        def of_discriminator(variables):
            real, changed = judge(variables, image)
            fake, changed = judge({**variables, **changed}, inpaint(state.generator.variables, image, hidden))
            values = jnp.mean(nn.softplus(-real), axis=(1, 2)) + jnp.mean(nn.softplus(fake), axis=(1, 2))
            return losses.mean(values / 2, valid), (changed, {})

        # both from the state before, as in the authors' code
        made, info = train_step(state.generator, of_generator, optimizers[0])
        judging, other = train_step(state.discriminator, of_discriminator, optimizers[1])
        return state._replace(generator=made, discriminator=judging), {**info, "loss_discriminator": other["loss"]}

    def errors(state, image):
        """The map of each scale, `[S, B, H, W]`: the larger one of the errors with which a pixel was restored."""
        masks = jnp.asarray(all_masks(image.shape[1:3]), image.dtype)

        def error(hidden):
            restored = inpaint(state.generator.variables, image, hidden[None, ..., None])
            return jnp.mean((restored - image) ** 2, axis=-1) * hidden[None]

        maps = jax.lax.map(error, masks)
        return maps.reshape(len(numbers), 4, *maps.shape[1:]).max(axis=1)

    def calibrate(key, state, frozen, batch):
        del key, frozen
        values = jnp.mean(errors(state, batch.image), axis=(2, 3)).T
        count, mean = running_mean(state.count, state.errors, values, batch.valid)
        return state._replace(count=count, errors=mean), {"images": count}

    def predict(state, frozen, batch):
        del frozen
        maps = errors(state, batch.image)
        if merge == "mean":
            merged = jnp.mean(maps / jnp.maximum(state.errors, 1e-12)[:, None, None, None], axis=0)
        else:
            scale = jnp.argmax(jnp.mean(maps, axis=(2, 3)) - state.errors[:, None], axis=0)
            merged = jnp.take_along_axis(maps, scale[None, :, None, None], axis=0)[0]
        return Prediction(ops.top_mean(merged.reshape(len(merged), -1), top), merged)

    both = Phase("train", learn, epochs=epochs, augment=augment), Phase("calibrate", calibrate)

    def warm_start(fresh, old):
        networks = map(copy_variables, fresh[:2], old[:2])
        return Inpainting(*networks, fresh.count, fresh.errors)

    return Detector(init, lambda spec: both, predict, warm_start=warm_start)
