"""ADTR: "Anomaly Detection Transformer with Feature Reconstruction" (You et al., ICONIP 2022, arXiv 2209.01816).

A transformer restores the features of normal images from one learned query, which fits normal features alone. ADTR+ goes on
with anomalies, labelled or drawn: features of normal positions are pulled to their reconstruction, anomalous ones pushed away.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector
from iadjax.detectors.families.gradient import copy_variables, gradient_phase, init_trained, mean_variables
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.restored import clipped_adamw, grid_features, pooled_prediction
from iadjax.errors import UserError
from iadjax.nn.feature_transformer import Reconstruction
from iadjax.synthesis.confetti import confetti

__all__ = ["adtr", "image_loss", "pixel_loss"]

# what ADTR+ may know of anomalies
LABELS = ("", "pixel", "image")


def _push(x: jax.Array) -> jax.Array:
    """-log(1 - exp(-x)), whose gradient would be infinite at 0."""
    return -jnp.log(-jnp.expm1(-jnp.maximum(x, 1e-6)))


def pixel_loss(phi: jax.Array, y: jax.Array, alpha: float) -> jax.Array:
    """L_px (eq. 7): mean (1 - y) phi - alpha log(1 - exp(-mean y phi)), without the second term where no y is above 0.

    Args:
      phi: `[B, h, w]`.
      y: `[B, h, w]`, the anomalous fraction of each position.
      alpha: the weight of pushing.
    """
    push = jnp.where(jnp.max(y, axis=(1, 2)) > 0, _push(jnp.mean(y * phi, axis=(1, 2))), 0)
    return jnp.mean((1 - y) * phi, axis=(1, 2)) + alpha * push


def image_loss(phi: jax.Array, y: jax.Array, alpha: float, k: int) -> jax.Array:
    """L_img (eq. 8-9): (1 - y) q - alpha y log(1 - exp(-q)), q the mean of the k largest phi.

    Args:
      phi: `[B, h, w]`.
      y: `[B]`, 0 normal, 1 anomalous.
      alpha: the weight of pushing.
      k: how many positions count; all if there are fewer.
    """
    q = ops.mean_of_largest(phi.reshape(len(phi), -1), k)
    return jnp.where(y > 0, alpha * _push(q), q)


def adtr(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("layer1", "layer2", "layer3"),
    stride: int = 16,
    hidden: int = 256,
    heads: int = 8,
    num_encoder_layers: int = 4,
    num_decoder_layers: int = 4,
    width: int = 1024,
    dropout: float = 0.1,
    pool_size: int = 16,
    labels: str = "",
    alpha: float = 0.003,
    k: int = 20,
    anomaly_fraction: float = 0.0,
    confetti_prob: float = 0.5,
    epochs: int = 500,
    plus_epochs: int = 300,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-4,
    clip_norm: float = 0.0,
    decay_at: float = 0.8,
) -> Detector:
    """Builds ADTR, or ADTR+ with `labels`.

    Map: Euclidean distance between features and their reconstruction.

    The authors published no code. Sizes, losses and schedule are the paper's. Ours are what it leaves open: dropout, the
    initial weights, the norm after the decoder, positions also in attention to the encoder's output, and the window of the
    score are as in UniAD's code (github.com/zhiyuanyou/UniAD, Apache-2.0), by the same authors. The second stage of ADTR+ has a
    new optimiser, whose rate stays at `learning_rate`.

    Args:
      backbone: frozen network; EfficientNet-B4 with 720 channels in the paper.
      layers: the levels of f, resized to one grid and concatenated.
      stride: of that grid, in pixels of the input: 16 makes 16 x 16 tokens of 256 x 256 (section 4); 8 makes the 32 x 32 of
        the paper's appendix.
      hidden, heads, width, dropout: channels, attention heads, feed-forward channels and dropout of the transformer.
      num_encoder_layers, num_decoder_layers: its layers.
      pool_size: the image score is the maximum of the map averaged over windows of this side.
      labels: what ADTR+ knows of anomalies: "pixel": where they are (eq. 7); "image": which images have any (eq. 9). "": ADTR,
        normal images alone.
      alpha, k: of these losses.
      anomaly_fraction: fraction of a batch that is labelled anomalies; it needs `protocol.name="supervised"`. 0: anomalies are
        confetti noise on normal images (FCDD, Liznerski et al., ICLR 2021).
      confetti_prob: probability that a normal image gets that noise; FCDD's.
      epochs, plus_epochs: passes over the normal images by the mean squared error, then with anomalies.
      learning_rate, weight_decay, clip_norm, decay_at: AdamW's, and the largest norm of a gradient (0: not clipped); the rate
        drops to a tenth after the fraction `decay_at` of the epochs.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    layers_of = {"num_encoder_layers": num_encoder_layers, "num_decoder_layers": num_decoder_layers}
    check_options("[1, inf)", stride=stride, heads=heads, width=width, pool_size=pool_size, k=k, **layers_of)
    check_options("[1, inf)", epochs=epochs, plus_epochs=plus_epochs)
    check_options("[2, inf)", hidden=hidden)
    check_options("[0, 1)", dropout=dropout, anomaly_fraction=anomaly_fraction)
    check_options("[0, 1]", confetti_prob=confetti_prob, decay_at=decay_at)
    check_options("(0, inf)", alpha=alpha, learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay, clip_norm=clip_norm)
    if hidden % heads or hidden % 2:
        raise UserError(f"detector.hidden must be even and a multiple of detector.heads, got {hidden} and {heads}")
    if labels not in LABELS:
        raise UserError(f"detector.labels must be one of '', 'pixel' and 'image', got {labels!r}")
    if anomaly_fraction and not labels:
        raise UserError("detector.anomaly_fraction needs detector.labels='pixel' or 'image'")
    network = Reconstruction(
        hidden, heads, num_encoder_layers, num_decoder_layers, width, dropout, neighbor_size=0, layer_queries=False
    )
    embed = grid_features(backbone, layers, stride)
    optimizer = clipped_adamw(learning_rate, weight_decay, clip_norm, decay_at, epochs)
    # its rate never drops
    plus_optimizer = clipped_adamw(learning_rate, weight_decay, clip_norm, 1.0, plus_epochs)

    def restored(key, variables, f):
        return network.apply(variables, f, train=True, rngs={"dropout": key})

    def loss(key, variables, frozen, batch):
        del frozen
        # eq. 1
        return losses.mean(losses.mse(restored(key, variables, batch.features), batch.features), batch.valid), ({}, {})

    def augment(rng, image, draw):
        del draw
        if rng.random() >= confetti_prob:
            return {"confetti": image, "mask": np.zeros(image.shape[:2], np.uint8)}
        image, mask = confetti(rng, image)
        return {"confetti": image, "mask": mask}

    def plus_loss(key, variables, frozen, batch):
        f, mask = batch.features, batch.mask
        if not anomaly_fraction:
            f, mask = embed(frozen, batch.extra["confetti"]), batch.extra["mask"]
        # eq. 6
        phi = losses.pseudo_huber(jnp.mean(jnp.abs(f - restored(key, variables, f)), axis=-1))
        if labels == "pixel":
            y = ops.resize(mask[..., None].astype(phi.dtype), phi.shape[1:], antialias=True)[..., 0]
            values = pixel_loss(phi, y, alpha)
        else:
            y = batch.label if anomaly_fraction else jnp.max(mask, axis=(1, 2)).astype(jnp.int32)
            values = image_loss(phi, y, alpha, k)
        return losses.mean(values, batch.valid), ({}, {})

    def init(key, frozen, spec):
        del frozen
        return init_trained(network.init(key, jnp.zeros(spec.features.shape)), optimizer(spec))

    def phases(spec):
        if not labels:
            return (gradient_phase(loss, optimizer(spec), epochs=epochs),)

        def restart(key, state, frozen):
            del key, frozen
            return init_trained(state.variables, plus_optimizer(spec))

        normal = gradient_phase(loss, optimizer(spec), epochs=epochs, finalize=restart)
        drawn = {"anomaly_fraction": anomaly_fraction} if anomaly_fraction else {"augment": augment}
        plus = gradient_phase(plus_loss, plus_optimizer(spec), "anomalies", epochs=plus_epochs, needs_image=True, **drawn)
        return normal, plus

    def predict(state, frozen, batch):
        del frozen
        s = jnp.linalg.norm(batch.features - network.apply(state.variables, batch.features), axis=-1)
        return pooled_prediction(s, batch.image.shape[1:3], pool_size)

    return Detector(init, phases, predict, embed, warm_start=copy_variables, merge=mean_variables)
