"""UniAD: "A Unified Model for Multi-class Anomaly Detection" (You et al., NeurIPS 2022, arXiv 2206.03687).

One transformer restores the features of normal images of all categories. Three things keep it from copying its input:
masked attention to the neighbourhood, a learned query in every decoder layer, and noise on the features.
"""

from collections.abc import Sequence
from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.schedules import step_decay
from iadjax.errors import UserError
from iadjax.nn.attention import MultiheadAttention
from iadjax.nn.layers import Dropout
from iadjax.synthesis.feature_noise import jitter

__all__ = ["uniad"]


def _dense(features: int, name: str) -> nn.Dense:
    return nn.Dense(features, kernel_init=nn.initializers.xavier_uniform(), name=name)


def _norm(name: str) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, name=name)


class Layer(nn.Module):
    """An encoder or decoder layer (figure 4), normalised after each residual.

    Attributes:
      heads, width, dropout: number of heads, channels of the feed-forward network, dropout rate.
      query: whether it is a decoder layer, whose learned query attends to the encoder's output, then to the previous layer.
    """

    heads: int
    width: int
    dropout: float
    query: bool

    @nn.compact
    def __call__(self, x, memory, position, mask, train):
        def drop(y):
            return Dropout(self.dropout, deterministic=not train)(y)

        def attend(query, source, name):
            attention = MultiheadAttention(self.heads, self.dropout, name=name)
            return drop(attention(query + position[None], source + position[None], source, mask, train))

        depth = x.shape[-1]
        if self.query:
            learned = self.param("learned_embed_weight", nn.initializers.normal(1.0), x.shape[1:])
            y = jnp.broadcast_to(learned, x.shape)
            y = _norm("norm1")(y + attend(y, memory, "self_attn"))
            y = _norm("norm2")(y + attend(y, x, "multihead_attn"))
        else:
            y = _norm("norm1")(x + attend(x, x, "self_attn"))
        inner = drop(nn.relu(_dense(self.width, "linear1")(y)))
        return _norm("norm3" if self.query else "norm2")(y + drop(_dense(depth, "linear2")(inner)))


class Reconstruction(nn.Module):
    """Feature tokens `[B, h, w, C]` to their reconstruction."""

    hidden: int
    heads: int
    num_encoder_layers: int
    num_decoder_layers: int
    width: int
    dropout: float
    neighbor_size: int

    @nn.compact
    def __call__(self, tokens, train=False):
        batch, height, width, channels = tokens.shape
        mask = jnp.asarray(_neighbor_mask(height, width, self.neighbor_size))
        uniform, half = nn.initializers.uniform(1.0), self.hidden // 2
        columns = self.param("pos_embed_col_embed_weight", uniform, (width, half))
        rows = self.param("pos_embed_row_embed_weight", uniform, (height, half))
        grid = (height, width, half)
        position = jnp.concatenate([jnp.broadcast_to(columns, grid), jnp.broadcast_to(rows[:, None], grid)], -1)
        position = position.reshape(-1, self.hidden)
        x = _dense(self.hidden, "input_proj")(tokens.reshape(batch, -1, channels))
        options = (self.heads, self.width, self.dropout)
        for i in range(self.num_encoder_layers):
            x = Layer(*options, False, name=f"transformer_encoder_layers_{i}")(x, x, position, mask, train)
        memory = x
        for i in range(self.num_decoder_layers):
            x = Layer(*options, True, name=f"transformer_decoder_layers_{i}")(x, memory, position, mask, train)
        x = _dense(channels, "output_proj")(_norm("transformer_decoder_norm")(x))
        return x.reshape(tokens.shape)


@lru_cache
def _neighbor_mask(height: int, width: int, size: int) -> np.ndarray:
    """`[h w, h w]`, minus infinity between a token and those in the window around it, itself included (figure 5)."""
    y, x = np.divmod(np.arange(height * width), width)
    near = (np.abs(y[:, None] - y) <= size // 2) & (np.abs(x[:, None] - x) <= size // 2)
    if size and np.any(near.all(axis=1)):
        raise UserError(
            f"detector.neighbor_size={size} hides the whole {height}x{width} grid from some token; lower it or detector.stride"
        )
    return np.where(near & (size > 0), -np.inf, 0).astype(np.float32)


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

    def embed(frozen, image):
        grid = tuple(max(1, size // stride) for size in image.shape[1:3])
        levels = backbone.features(frozen["backbone"], image, layers)
        return jnp.concatenate([ops.resize(level, grid, align_corners=True) for level in levels], axis=-1)

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
        maps = ops.anomaly_map(s, batch.image.shape[1:3], align_corners=True)
        return Prediction(ops.box_mean(maps, pool_size).max(axis=(1, 2)), maps)

    def optimizer(spec):
        rate = step_decay(learning_rate, 0.1, decay_at * epochs * spec.steps_per_epoch)
        return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adamw(rate, weight_decay=weight_decay))

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)
