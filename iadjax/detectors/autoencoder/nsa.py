"""NSA: "Natural Synthetic Anomalies for Self-Supervised Anomaly Detection and Localization" (Schlüter et al., ECCV 2022,
arXiv 2109.15222).

Patches of another normal image are blended into an image without an edge. A ResNet encoder-decoder learns where they are, and
how much they changed.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones.backbone import normalize
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.nn.masked_convolution import MaskedBlock, masked_block
from iadjax.nn.norms import BatchNorm
from iadjax.nn.residual import Pyramid, conv
from iadjax.nn.transposed import ConvTranspose
from iadjax.synthesis.nsa import nsa as blended_patches

__all__ = ["EncoderDecoder", "nsa"]


class _UpBlock(nn.Module):
    """A residual block whose first convolution is transposed and doubles the grid."""

    features: int

    @nn.compact
    def __call__(self, x, valid):
        y = ConvTranspose(self.features, 3, 2, 1, 1, bias=False, name="conv1")(x)
        y = conv(self.features, 3, 1, "conv2")(nn.relu(BatchNorm(name="bn1")(y, valid)))
        y = BatchNorm(name="bn2")(y, valid)
        # of kernel 1: every other position is zero, as in the authors' code
        shortcut = ConvTranspose(self.features, 1, 2, 0, 1, bias=False, name="upsample_0")(x)
        return nn.relu(y + BatchNorm(name="upsample_1")(shortcut, valid))


class EncoderDecoder(nn.Module):
    """A ResNet-18 without its head, two 1 x 1 convolutions, and a decoder of residual blocks; names are the authors'.

    Attributes:
      width: channels of the stem, 64 in a ResNet-18.
      blocks: residual blocks of the encoder's stages; each stage but the first halves the grid, and has twice the channels.
      block: kind of the masked block after the encoder; "" for none.
    """

    width: int
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    block: str = ""

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """`[B, H, W, 3]`, normalised, to logits `[B, H, W]` and the block's loss `[B]`; `valid` as that of `BatchNorm`."""
        n = self.width
        x = Pyramid([n << i for i in range(len(self.blocks))], self.blocks, stem=n, name="encoder")(x, valid)[-1]
        own = jnp.zeros(len(x))
        if self.block:
            seen, x = x, MaskedBlock(self.block, name="block")(x)
            own = losses.mse(x, seen)
        x = nn.relu(conv(4 * n, 1, 1, "nin_0")(x))
        x = nn.relu(conv(2 * n, 1, 1, "nin_2")(x))
        for i in range(1, len(self.blocks)):
            x = _UpBlock(max(1, n >> (i - 1)), name=f"uplayer{i}_0")(x, valid)
        x = ops.resize(x, (2 * x.shape[1], 2 * x.shape[2]), align_corners=True)
        return ConvTranspose(1, 7, 2, 3, 1, bias=False, name="convtranspose1")(x)[..., 0], own


def nsa(
    *,
    width: int = 64,
    blocks: Sequence[int] = (2, 2, 2, 2),
    max_patches: int = 3,
    half_width: tuple[float, float] = (0.03, 0.4),
    resize: tuple[float, float] = (0.7, 1.3),
    mixed: bool = False,
    label: str = "logistic",
    logistic: tuple[float, float] = (1 / 6, 15.0),
    block: str = "",
    block_weight: float = 0.1,
    epochs: int = 320,
    learning_rate: float = 1e-3,
    min_learning_rate: float = 1e-6,
) -> Detector:
    """Builds NSA.

    Map: the predicted label of each pixel, in [0, 1]; with the label "intensity" the predicted change in grey levels of 255.

    The authors have bounds, numbers of patches, labels and backgrounds for each category of MVTec AD. The defaults are those of
    most objects; there are no backgrounds, so that patches may fall beside the object.

    Args:
      width: channels of the network's stem.
      blocks: residual blocks of the encoder's four stages, those of a ResNet-18.
      max_patches: patches in an image: the first always, each further one with probability 1/2.
      half_width: bounds of half the side of a patch, as fractions of the image's side.
      resize: bounds of the factor by which a patch is resized, (0.5, 2) for textures.
      mixed: mixed gradients in the Poisson equation, see `synthesis.nsa`.
      label: "binary", "logistic" or "intensity", see `synthesis.nsa`; the loss is the binary cross entropy, that of "intensity"
        the squared error.
      logistic: (k, x0) of the label "logistic".
      block: "sspcab" (Ristea et al., CVPR 2022) or "ssmctb" (Madan et al., TPAMI 2023) after the encoder, a place that is ours;
        "": none.
      block_weight: of the block's own loss.
      epochs, learning_rate, min_learning_rate: Adam's; the rate falls by a cosine. Unaligned objects have 560 epochs.

    Raises:
      UserError: an option out of its range, or images whose sides are no multiples of 32.
    """
    check_options("[1, inf)", width=width, max_patches=max_patches, epochs=epochs)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", min_learning_rate=min_learning_rate, block_weight=block_weight)
    masked_block(block)
    if len(blocks) != 4 or min(blocks) < 1:
        raise UserError(f"detector.blocks must be four positive numbers, got {tuple(blocks)}")
    if label not in ("binary", "logistic", "intensity"):
        raise UserError(f"detector.label must be 'binary', 'logistic' or 'intensity', got {label!r}")
    if not 0 < half_width[0] <= half_width[1] <= 0.5 or not 0 < resize[0] <= resize[1]:
        raise UserError(f"detector.half_width must lie in (0, 0.5] and resize above 0, in order; got {half_width}, {resize}")
    if not logistic[0] > 0 or not logistic[1] >= 0:
        raise UserError(f"detector.logistic must be (above 0, at least 0), got {logistic}")
    network = EncoderDecoder(width, tuple(blocks), block)

    def augment(rng, image, draw):
        options = {"max_patches": max_patches, "half_width": half_width, "resize": resize, "mixed": mixed}
        changed, target = blended_patches(rng, image, draw(), label=label, logistic=logistic, **options)
        return {"augmented": changed, "target": target.astype("float32")}

    def init_variables(key, frozen, spec):
        del frozen
        if any(side % 32 for side in spec.image_shape[:2]):
            raise UserError(f"nsa needs sides that are multiples of 32, got {spec.image_shape[:2]}; set data.resize")
        return network.init(key, jnp.zeros((1, *spec.image_shape)))

    def loss(key, variables, frozen, batch):
        del key, frozen
        x, target = normalize(batch.extra["augmented"]), batch.extra["target"]
        (logits, own), changed = network.apply(variables, x, batch.valid, mutable="batch_stats")
        if label == "intensity":
            values = losses.mse(nn.relu(logits), target)
        else:
            values = jnp.mean(optax.losses.sigmoid_binary_cross_entropy(logits, target), axis=(1, 2))
        return losses.mean(values + block_weight * own, batch.valid), (changed, {})

    def predict(variables, frozen, batch):
        del frozen
        logits, _ = network.apply(variables, normalize(batch.image))
        maps = nn.relu(logits) if label == "intensity" else nn.sigmoid(logits)
        # section 3.3: the mean over pixels
        return Prediction(jnp.mean(maps, axis=(1, 2)), maps)

    def optimizer(spec):
        steps = epochs * spec.steps_per_epoch
        return optax.adam(optax.cosine_decay_schedule(learning_rate, steps, min_learning_rate / learning_rate))

    return gradient(init_variables, loss, predict, optimizer, epochs=epochs, augment=augment)
