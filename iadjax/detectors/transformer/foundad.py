"""FoundAD: "Foundation Visual Encoders Are Secretly Few-Shot Anomaly Detectors" (Zhai et al., ICLR 2026, arXiv 2510.01934).

A small transformer projects features of a frozen one onto the manifold of normal images. It learns this from a few images and
from copies of them with pasted patches. What it moves far is anomalous.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Prediction
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.options import check_options
from iadjax.errors import UserError
from iadjax.nn.layers import Dropout
from iadjax.nn.transformer import Mlp, SelfAttention, dense, norm
from iadjax.synthesis.appearance import varied
from iadjax.synthesis.cutpaste import cutpaste, cutpaste_scar

__all__ = ["foundad"]

_init = nn.initializers.normal(0.02)


class Block(nn.Module):
    """Attention and a feed-forward network, each normalised before and added to its input."""

    heads: int

    @nn.compact
    def __call__(self, x):
        x = x + SelfAttention(self.heads, _init, name="attn")(norm("norm1", 1e-6)(x))
        return x + Mlp(kernel_init=_init, name="mlp")(norm("norm2", 1e-6)(x))


class Projector(nn.Module):
    """The projection operator, with the names of the authors' code; the embedded input is added after every block."""

    width: int
    depth: int
    heads: int
    positions: bool
    dropout: float

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
        batch, height, width, depth = features.shape
        x = features.reshape(batch, height * width, depth)
        x = Dropout(self.dropout, deterministic=not train)(x)
        x = dense(self.width, "predictor_embed", _init)(x)
        if self.positions:
            # random numbers that are not trained
            shape = (1, x.shape[1], self.width)
            table = self.variable("positions", "predictor_pos_embed", lambda: _init(self.make_rng("params"), shape))
            x = x + table.value
        embedded = x
        for i in range(self.depth):
            x = Block(self.heads, name=f"predictor_blocks_{i}")(x) + embedded
        x = dense(depth, "predictor_proj", _init)(norm("predictor_norm", 1e-6)(x))
        return x.reshape(features.shape)


def foundad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("block10.norm",),
    unit: bool = False,
    width: int = 384,
    depth: int = 6,
    heads: int = 12,
    positions: bool = False,
    dropout: float = 0.2,
    vary: bool = True,
    paste: float = 0.5,
    epochs: int = 2000,
    learning_rate: float = 1e-3,
    weight_decay: float = 1e-4,
    top_k: int = 10,
    sigma: float = 0.0,
) -> Detector:
    """Builds FoundAD.

    Map: squared difference of features and their projection, mean over channels.

    Args:
      backbone: frozen network; DINOv3 ViT-B/16 in the paper, DINOv2 and others work.
      layers: the features; the third last block after the last norm in the authors' code. Several are concatenated.
      unit: whether features and their projection are normalised to length 1.
      width, depth, heads: channels, blocks and attention heads of the projector.
      positions: add fixed random numbers for each position, which ties the model to one input size; off in the paper.
      dropout: of the features before the projector.
      vary: train on turned, mirrored, recoloured and blurred images, see `synthesis.appearance.varied`.
      paste: probability that the projector sees a batch with pasted patches (CutPaste); the target is that without them. The
        authors paste on the product, by thresholds for each category; here patches lie anywhere.
      epochs, learning_rate, weight_decay: AdamW's.
      top_k: the image's score is the mean error of so many patches; 10 for MVTec AD and 6 for VisA in the authors' code.
      sigma: of the Gaussian that smooths the map, in pixels of the input; 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", width=width, depth=depth, heads=heads, epochs=epochs, top_k=top_k)
    check_options("[0, 1)", dropout=dropout)
    check_options("[0, 1]", paste=paste)
    check_options("(0, inf)", learning_rate=learning_rate)
    check_options("[0, inf)", weight_decay=weight_decay, sigma=sigma)
    if width % heads:
        raise UserError(f"detector.heads must divide detector.width, got {heads} and {width}")
    projector = Projector(width, depth, heads, positions, dropout)

    def scaled(x):
        return ops.unit(x) if unit else x

    def embed(frozen, image):
        return scaled(ops.concatenate_levels(backbone.features(frozen["backbone"], image, layers)))

    def init_variables(key, frozen, spec):
        del frozen
        return projector.init(key, jnp.zeros(spec.features.shape))

    def augment(rng, image, draw):
        del draw
        image = varied(rng, image) if vary else image
        if rng.random() < 0.5:
            pasted, _ = cutpaste(rng, image, area=(0.02, 0.25), jitter=0.5)
        else:
            pasted, _ = cutpaste_scar(rng, image, jitter=0.5)
        return {"varied": image, "pasted": pasted}

    def loss(key, variables, frozen, batch):
        choice_key, dropout_key = jax.random.split(key)
        # eq. 4: the features of the image itself are the target, whatever the projector sees
        target = embed(frozen, batch.extra["varied"])
        seen = jax.lax.cond(
            jax.random.bernoulli(choice_key, paste), lambda: embed(frozen, batch.extra["pasted"]), lambda: target
        )
        projected = scaled(projector.apply(variables, seen, train=True, rngs={"dropout": dropout_key}))
        return losses.mean(losses.mse(projected, target), batch.valid), ({}, {})

    def predict(variables, frozen, batch):
        del frozen
        z = batch.features
        distance = jnp.mean((scaled(projector.apply(variables, z)) - z) ** 2, axis=-1)
        score = ops.mean_of_largest(distance.reshape(len(distance), -1), top_k)
        return Prediction(score, ops.anomaly_map(distance, batch.image.shape[1:3], sigma))

    def optimizer(spec):
        del spec
        return optax.adamw(learning_rate, weight_decay=weight_decay)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs, augment=augment)
