"""MSTUnet: "Masked Swin Transformer Unet for Industrial Anomaly Detection" (Jiang et al., IEEE TII 2023,
doi 10.1109/TII.2022.3199228).

Synthetic anomalies are drawn into normal images, and cells of the images are hidden. A U-Net of Swin blocks restores the normal
image from what it sees far away. A convolutional U-Net sees the restored and the given image, and segments the anomaly.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.detector import Detector
from iadjax.detectors.families.discriminative import restoring_and_segmenting, segmented
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import step_decay
from iadjax.errors import UserError
from iadjax.nn.swin import SwinUNet
from iadjax.nn.unet import DiscriminativeDecoder, Encoder, discriminative_widths
from iadjax.synthesis.perlin_texture import perlin_anomaly
from iadjax.synthesis.source import image_source

__all__ = ["MSTUnet", "mstunet"]


class MSTUnet(nn.Module):
    """Both networks.

    Attributes:
      width, depths, heads, window: of `nn.swin.SwinUNet`.
      segment_width: channels of the discriminative network's first block.
    """

    width: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    segment_width: int

    @nn.compact
    def __call__(self, seen: jax.Array, image: jax.Array, valid: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """The image with hidden cells and without, `[B, H, W, 3]`, to the restored image and logits `[B, H, W, 2]`."""
        restored = SwinUNet(3, self.width, self.depths, self.heads, self.window, name="restorer")(seen)
        levels = Encoder(discriminative_widths(self.segment_width), name="encoder_segment")(
            jnp.concatenate([restored, image], axis=-1), valid
        )
        return restored, DiscriminativeDecoder(self.segment_width, 2, name="decoder_segment")(levels, valid)


def mstunet(
    *,
    width: int = 96,
    depths: Sequence[int] = (2, 2, 2, 2),
    heads: Sequence[int] = (3, 6, 12, 24),
    window: int = 8,
    segment_width: int = 64,
    cell: int = 16,
    mask_ratio: float = 0.25,
    textures: str = "",
    anomaly_prob: float = 0.5,
    max_beta: float = 0.8,
    pool_size: int = 21,
    epochs: int = 700,
    learning_rate: float = 1e-4,
) -> Detector:
    """Builds MSTUnet.

    The authors published no code, and their constants could not be confirmed. The Swin U-Net has Swin-Unet's depths and heads;
    anomalies, discriminative network, losses, schedule and score are DRAEM's; window, cells and their share are ours.

    Map: probability of the class "anomalous", in [0, 1].

    Args:
      width: channels of the Swin U-Net's first stage; each stage doubles them and halves the grid.
      depths, heads: blocks and attention heads of each stage.
      window: side of the windows in patches of 4 x 4 pixels.
      segment_width: channels of the discriminative network's first block.
      cell: side in pixels of the cells that are hidden from the Swin U-Net in training.
      mask_ratio: probability that a cell is hidden. In prediction none is.
      textures: folder of anomaly source images; "" draws textures.
      anomaly_prob: probability that a training image gets an anomaly.
      max_beta: largest opacity of the image inside an anomaly.
      pool_size: the image score is the maximum of the map averaged over windows of this side, odd.
      epochs, learning_rate: Adam's. The rate drops to a fifth after 80 % and again after 90 % of the epochs.

    Raises:
      UserError: an option out of its range, or heads that do not divide the channels of their stage; in `init`: sides that the
        stages or the cells do not divide; in fitting: no image in `textures`.
    """
    check_options("[1, inf)", width=width, segment_width=segment_width, cell=cell, epochs=epochs)
    check_options("[2, inf)", window=window)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, 1]", anomaly_prob=anomaly_prob, max_beta=max_beta)
    check_options("[0, 1)", mask_ratio=mask_ratio)
    check_odd(pool_size=pool_size)
    depths, heads = tuple(depths), tuple(heads)
    if not depths or len(depths) != len(heads) or min(depths + heads) < 1:
        raise UserError(f"detector.depths and detector.heads must be as many numbers from 1, got {depths} and {heads}")
    if any(width * 2**stage % number for stage, number in enumerate(heads)):
        raise UserError(f"detector.heads {heads} must divide the channels of their stages, {width} doubled by each")
    source, network = image_source(textures), MSTUnet(width, depths, heads, window, segment_width)
    # the discriminative network halves its grid five times
    multiple = np.lcm(cell, max(32, 2 ** (len(depths) + 1)))

    def augment(rng, image, draw):
        del draw
        augmented, mask = image, np.zeros(image.shape[:2], np.uint8)
        if rng.random() < anomaly_prob:
            augmented, mask = perlin_anomaly(rng, image, source, beta=(0.0, max_beta))
        shown = rng.random([side // cell for side in image.shape[:2]]) >= mask_ratio
        return {"original": image, "augmented": augmented, "mask": mask, "shown": shown}

    def init_variables(key, frozen, spec):
        del frozen
        if any(side % multiple for side in spec.image_shape[:2]):
            raise UserError(
                f"mstunet needs sides that are multiples of {multiple}, got {spec.image_shape[:2]}; set data.resize or "
                "detector.cell"
            )
        image = jnp.zeros((1, *spec.image_shape))
        return network.init(key, image, image)

    def loss(key, variables, frozen, batch):
        del key, frozen
        original, augmented, mask = (batch.extra[name] for name in ("original", "augmented", "mask"))
        seen = augmented * ops.block_repeat(batch.extra["shown"][..., None].astype(augmented.dtype), cell)
        (restored, logits), changed = network.apply(variables, seen, augmented, batch.valid, mutable="batch_stats")
        parts = restoring_and_segmenting(restored, original, logits, mask)
        parts = {name: losses.mean(value, batch.valid) for name, value in parts.items()}
        return sum(parts.values()), (changed, parts)

    def predict(variables, frozen, batch):
        del frozen
        _, logits = network.apply(variables, batch.image, batch.image)
        return segmented(logits, pool_size)

    def optimizer(spec):
        steps = epochs * spec.steps_per_epoch
        return optax.adam(step_decay(learning_rate, 0.2, 0.8 * steps, 0.9 * steps))

    return gradient(init_variables, loss, predict, optimizer, epochs=epochs, augment=augment)
