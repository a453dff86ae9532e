"""UniAD: "A Unified Model for Multi-class Anomaly Detection" (You et al., NeurIPS 2022, arXiv 2206.03687).

One transformer restores the features of normal images of all categories. Three things keep it from copying its input:
masked attention to the neighbourhood, a learned query in every decoder layer, and noise on the features.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from iadjax import losses
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.restored import clipped_adamw, grid_features, pooled_prediction
from iadjax.errors import UserError
from iadjax.nn.feature_transformer import Reconstruction
from iadjax.synthesis.feature_noise import jitter

__all__ = ["uniad"]


def uniad(
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
    neighbor_size: int = 7,
    jitter_scale: float = 20.0,
    jitter_prob: float = 1.0,
    pool_size: int = 16,
    epochs: int = 1000,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-4,
    clip_norm: float = 0.1,
    decay_at: float = 0.8,
) -> Detector:
    """Builds UniAD.

    Map: Euclidean distance between features and their reconstruction.

    Args:
      backbone: frozen network; EfficientNet-B4 up to 272 channels in the paper. `efficientnet_b4_static` has the padding of
        the authors' code.
      layers: the levels of f_org, resized to one grid (corners aligned, as in the authors' code) and concatenated.
      stride: of that grid, in pixels of the input: 16 makes 14 x 14 tokens of 224 x 224.
      hidden, heads, width, dropout: channels, attention heads, feed-forward channels and dropout of the transformer.
      num_encoder_layers, num_decoder_layers: its layers.
      neighbor_size: side of the window that attention may not look into, odd; 0 = no mask.
      jitter_scale, jitter_prob: alpha of feature jittering (section 3.3) and the probability that a batch gets it.
      pool_size: the image score is the maximum of the map averaged over windows of this side (section 4.1).
      epochs, learning_rate, weight_decay, clip_norm, decay_at: AdamW's, and the largest norm of a gradient; the rate drops to
        a tenth after the fraction `decay_at` of the epochs.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    layers_of = {"num_encoder_layers": num_encoder_layers, "num_decoder_layers": num_decoder_layers}
    check_options("[1, inf)", stride=stride, heads=heads, width=width, epochs=epochs, pool_size=pool_size, **layers_of)
    check_options("[2, inf)", hidden=hidden)
    check_options("[0, 1)", dropout=dropout)
    check_options("[0, 1]", jitter_prob=jitter_prob, decay_at=decay_at)
    check_options("(0, inf)", learning_rate=learning_rate, clip_norm=clip_norm)
    check_options("[0, inf)", neighbor_size=neighbor_size, jitter_scale=jitter_scale, weight_decay=weight_decay)
    if hidden % heads or hidden % 2:
        raise UserError(f"detector.hidden must be even and a multiple of detector.heads, got {hidden} and {heads}")
    network = Reconstruction(hidden, heads, num_encoder_layers, num_decoder_layers, width, dropout, neighbor_size)

    def init_variables(key, frozen, spec):
        del frozen
        return network.init(key, jnp.zeros(spec.features.shape))

    def loss(key, variables, frozen, batch):
        del frozen
        f_org = batch.features
        jitter_key, dropout_key = jax.random.split(key)
        tokens = jitter(jitter_key, f_org, jitter_scale, jitter_prob)
        f_rec = network.apply(variables, tokens, train=True, rngs={"dropout": dropout_key})
        # eq. 5
        return losses.mean(losses.mse(f_rec, f_org), batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        del frozen
        f_org = batch.features
        f_rec = network.apply(variables, f_org)
        # eq. 6
        s = jnp.linalg.norm(f_org - f_rec, axis=-1)
        return pooled_prediction(s, batch.image.shape[1:3], pool_size)

    optimizer = clipped_adamw(learning_rate, weight_decay, clip_norm, decay_at, epochs)
    embed = grid_features(backbone, layers, stride)
    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
