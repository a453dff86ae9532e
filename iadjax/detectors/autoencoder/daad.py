"""DAAD: "Divide-and-Assemble: Learning Block-wise Memory for Unsupervised Anomaly Detection" (Hou et al., ICCV 2021, arXiv
2107.13118).

An autoencoder's features are read from memories of normal ones, block by block. Large blocks restore little, small ones nearly
everything: their size decides what is restored. A discriminator keeps restored images real, and its features score too.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.adversarial import Networks, copy_networks
from iadjax.detectors.families.gradient import init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.nn.dcgan import Discriminator, check_square
from iadjax.nn.layers import Conv
from iadjax.nn.memory import BlockMemory
from iadjax.nn.norms import BatchNorm
from iadjax.nn.transposed import ConvTranspose

__all__ = ["MemoryUNet", "daad"]


class MemoryUNet(nn.Module):
    """A U-Net without plain skip connections: the features of every scale go through a memory (section 3).

    Attributes:
      width: channels of the finest scale; each further one has twice as many, up to eight times.
      block_sides: side of the blocks at each scale, the finest first; so many scales, each half the size of the one before.
      items, groups, shrink: see `nn.memory.BlockMemory`.
    """

    width: int
    block_sides: tuple[int, ...]
    items: int
    groups: int
    shrink: float

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """`[B, H, W, 3]` in [-1, 1] to the restored images and the entropy of the addresses, `[B]`."""

        def norm(x, name):
            return nn.leaky_relu(BatchNorm(name=name)(x, valid), 0.2)

        read, entropy = [], jnp.zeros(len(x))
        widths = [self.width * min(2**i, 8) for i in range(len(self.block_sides))]
        for i, (features, side) in enumerate(zip(widths, self.block_sides, strict=True)):
            x = norm(Conv(features, 4, 2, 1, name=f"down{i}")(x), f"down{i}_norm")
            y, own = BlockMemory(self.items, side, self.groups, self.shrink, name=f"memory{i}")(x)
            read.append(y)
            entropy += own / len(widths)
        y = read.pop()
        for i in range(len(widths) - 1, 0, -1):
            y = norm(ConvTranspose(widths[i - 1], name=f"up{i}")(y), f"up{i}_norm")
            y = norm(Conv(widths[i - 1], name=f"join{i}")(jnp.concatenate([y, read.pop()], axis=-1)), f"join{i}_norm")
        return jnp.tanh(ConvTranspose(3, name="up0")(y)), entropy


def daad(
    *,
    width: int = 64,
    block_sides: Sequence[int] = (16, 8, 4, 2),
    items: int = 500,
    groups: int = 1,
    shrink: float = 0.0025,
    discriminator_width: int = 64,
    adversarial_weight: float = 1e-2,
    entropy_weight: float = 2e-4,
    feature_weight: float = 0.01,
    epochs: int = 300,
    learning_rate: float = 1e-4,
    beta1: float = 0.5,
) -> Detector:
    """Builds DAAD, with the discriminator of DAAD+.

    Map: squared difference of image and restored image in [-1, 1], the mean over colours.

    No code of the authors is public, and the paper's constants were not to be had. So all constants and the networks are ours.
    Known are block-wise memories in the skip connections of several scales, and a score that takes the discriminator's features
    too. Addresses and their entropy are those of MemAE (Gong et al., ICCV 2019).

    Args:
      width: channels of the autoencoder's finest scale.
      block_sides: positions of a block along each axis at each scale, half the image the finest first. Larger blocks restore
        less.
      items: N of the memory of each scale.
      groups: parts of the channels, each with a memory of its own.
      shrink: lambda, weights of items below it become 0.
      discriminator_width: channels of its first convolution.
      adversarial_weight, entropy_weight: of these losses beside the squared error.
      feature_weight: of the squared difference of the discriminator's features, beside that of the images, in the score.
      epochs: passes over the images.
      learning_rate, beta1: of both Adam optimisers.

    Raises:
      UserError: an option out of its range; in fitting: images that are not square with a power of two as side, or whose grids
        the blocks do not divide.
    """
    sides = tuple(block_sides)
    if not sides or min(sides) < 1:
        raise UserError(f"detector.block_sides must be positive sides of blocks, got {sides}")
    check_options("[1, inf)", width=width, items=items, groups=groups, discriminator_width=discriminator_width, epochs=epochs)
    weights = {"adversarial_weight": adversarial_weight, "entropy_weight": entropy_weight, "feature_weight": feature_weight}
    check_options("[0, inf)", learning_rate=learning_rate, **weights)
    check_options("[0, 1)", shrink=shrink, beta1=beta1)
    if width % groups:
        raise UserError(f"detector.groups must divide detector.width, got {groups} and {width}")
    generator, discriminator = MemoryUNet(width, sides, items, groups, shrink), Discriminator(discriminator_width)
    optimizer = optax.adam(learning_rate, b1=beta1)

    def init(key, frozen, spec):
        del frozen
        check_square("daad", spec.image_shape, 16)
        side = spec.image_shape[0]
        for i, block in enumerate(sides, start=1):
            if (side >> i) % block or not side >> i:
                raise UserError(f"blocks of {block} positions do not divide a grid of {side >> i}; set detector.block_sides")
        keys, image = jax.random.split(key), jnp.zeros((1, *spec.image_shape))
        variables = generator.init(keys[0], image, None), discriminator.init(keys[1], image, None)
        return Networks(*(init_trained(each, optimizer) for each in variables))

    def update(key, state, frozen, batch):
        del key, frozen
        x, valid = 2 * batch.image - 1, batch.valid

        def judge(variables, x):
            return discriminator.apply(variables, x, valid, mutable="batch_stats")

        def of_generator(variables):
            (restored, entropy), changed = generator.apply(variables, x, valid, mutable="batch_stats")
            logits = judge(state.discriminator.variables, restored)[0][0]
            each = {"restored": losses.mse(x, restored), "entropy": entropy, "adversarial": nn.softplus(-logits)}
            parts = {f"loss_{name}": losses.mean(values, valid) for name, values in each.items()}
            factors = zip((1.0, entropy_weight, adversarial_weight), parts.values(), strict=True)
            return sum(weight * part for weight, part in factors), (changed, parts)

        def of_discriminator(variables):
            restored = generator.apply(state.generator.variables, x, valid, mutable="batch_stats")[0][0]
            (real, _), changed = judge(variables, x)
            fake = judge(variables, restored)[0][0]
            # the running statistics, which predict, are those of images
            return losses.mean(nn.softplus(-real) + nn.softplus(fake), valid) / 2, (changed, {})

        # both from the state before
        made, info = train_step(state.generator, of_generator, optimizer)
        judging, other = train_step(state.discriminator, of_discriminator, optimizer)
        return Networks(made, judging), {**info, "loss_discriminator": other["loss"]}

    def predict(state, frozen, batch):
        del frozen
        x = 2 * batch.image - 1
        restored, _ = generator.apply(state.generator.variables, x, None)
        features = [discriminator.apply(state.discriminator.variables, each, None)[1] for each in (x, restored)]
        return Prediction(
            losses.mse(x, restored) + feature_weight * losses.mse(*features), jnp.mean((x - restored) ** 2, axis=-1)
        )

    return Detector(init, lambda spec: (Phase("train", update, epochs=epochs),), predict, warm_start=copy_networks)
