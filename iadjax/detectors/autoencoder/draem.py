"""DRAEM: "A Discriminatively Trained Reconstruction Embedding for Surface Anomaly Detection" (Zavrtanik et al., ICCV 2021).

Synthetic anomalies are drawn into normal images (arXiv 2108.07610). One network restores the normal image. A second one sees
the restored and the given image, and segments the anomaly.
"""

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
from iadjax.nn.masked_convolution import MaskedBlock, masked_block
from iadjax.nn.unet import (
    DiscriminativeDecoder,
    Encoder,
    ReconstructiveDecoder,
    discriminative_widths,
    reconstructive_widths,
)
from iadjax.synthesis.perlin_texture import perlin_anomaly, rotate
from iadjax.synthesis.source import image_source

__all__ = ["Draem", "draem"]


class Draem(nn.Module):
    """Both sub-networks (figure 3), with the names of the authors' code.

    Attributes:
      width: channels of the reconstructive sub-network's first block.
      segment_width: of the discriminative one's.
      block: kind of the masked block in the place of the reconstructive encoder's last block; "" for none.
    """

    width: int
    segment_width: int
    block: str = ""

    @nn.compact
    def __call__(self, image: jax.Array, valid: jax.Array | None = None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """`[B, H, W, 3]` to the restored image, the logits `[B, H, W, 2]`, normal and anomalous, and the block's loss `[B]`."""
        widths = reconstructive_widths(self.width)
        encoder = Encoder(widths[:-1] if self.block else widths, name="encoder")
        deep, own = encoder(image, valid)[-1], jnp.zeros(len(image))
        if self.block:
            seen = ops.block_max(deep, 2)
            deep = MaskedBlock(self.block, name="block")(seen)
            own = losses.mse(deep, seen)
        restored = ReconstructiveDecoder(self.width, 3, name="decoder")(deep, valid)
        # the restored image first, as in the authors' code
        both = jnp.concatenate([restored, image], axis=-1)
        levels = Encoder(discriminative_widths(self.segment_width), name="encoder_segment")(both, valid)
        return restored, DiscriminativeDecoder(self.segment_width, 2, name="decoder_segment")(levels, valid), own


def draem(
    *,
    width: int = 128,
    segment_width: int = 64,
    textures: str = "",
    anomaly_prob: float = 0.5,
    rotate_prob: float = 0.3,
    max_beta: float = 0.8,
    pool_size: int = 21,
    block: str = "",
    block_weight: float = 0.1,
    epochs: int = 700,
    learning_rate: float = 1e-4,
) -> Detector:
    """Builds DRAEM.

    Map: probability of the class "anomalous", in [0, 1].

    Args:
      width, segment_width: channels of the first block of the reconstructive and of the discriminative sub-network.
      textures: folder of anomaly source images, DTD in the paper; "" draws textures.
      anomaly_prob: probability that a training image gets an anomaly.
      rotate_prob: probability that it is first rotated by up to 90 degrees.
      max_beta: largest opacity beta of the image inside an anomaly. The authors' code has beta from 0 to 0.8, the paper from
        0.1 to 1.
      pool_size: the image score is the maximum of the map averaged over windows of this side (eq. 6), odd.
      block: "sspcab" (Ristea et al., CVPR 2022) or "ssmctb" (Madan et al., TPAMI 2023) in the place of the reconstructive
        encoder's last block, where anomalib has SSPCAB (without its ReLU); "": none.
      block_weight: of the block's own loss.
      epochs, learning_rate: Adam's. The rate drops to a fifth after 80 % and again after 90 % of the epochs, as in the
        authors' code. In the paper it drops to a tenth after 400 and 600 of 700 epochs.

    Raises:
      UserError: an option out of its range; in fitting: no image in `textures`.
    """
    check_options("[1, inf)", width=width, segment_width=segment_width, epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, 1]", anomaly_prob=anomaly_prob, rotate_prob=rotate_prob, max_beta=max_beta)
    check_options("[0, inf)", block_weight=block_weight)
    check_odd(pool_size=pool_size)
    masked_block(block)
    source, network = image_source(textures), Draem(width, segment_width, block)

    def augment(rng, image, draw):
        del draw
        if rng.random() < rotate_prob:
            image = rotate(image, rng.uniform(-90, 90))
        augmented, mask = image, np.zeros(image.shape[:2], np.uint8)
        if rng.random() < anomaly_prob:
            augmented, mask = perlin_anomaly(rng, image, source, beta=(0.0, max_beta))
        return {"original": image, "augmented": augmented, "mask": mask}

    def init_variables(key, frozen, spec):
        del frozen
        if any(side % 32 for side in spec.image_shape[:2]):
            raise UserError(f"draem needs sides that are multiples of 32, got {spec.image_shape[:2]}; set data.resize")
        return network.init(key, jnp.zeros((1, *spec.image_shape)))

    def loss(key, variables, frozen, batch):
        del key, frozen
        original, augmented, mask = (batch.extra[name] for name in ("original", "augmented", "mask"))
        (restored, logits, own), changed = network.apply(variables, augmented, batch.valid, mutable="batch_stats")
        # eq. 1 and 5: L_rec = L2 + SSIM, L = L_rec + L_seg
        parts = restoring_and_segmenting(restored, original, logits, mask)
        parts |= {"loss_block": block_weight * own} if block else {}
        parts = {name: losses.mean(value, batch.valid) for name, value in parts.items()}
        return sum(parts.values()), (changed, parts)

    def predict(variables, frozen, batch):
        del frozen
        _, logits, _ = network.apply(variables, batch.image)
        return segmented(logits, pool_size)

    def optimizer(spec):
        steps = epochs * spec.steps_per_epoch
        return optax.adam(step_decay(learning_rate, 0.2, 0.8 * steps, 0.9 * steps))

    return gradient(init_variables, loss, predict, optimizer, epochs=epochs, augment=augment)
