"""Dinomaly: "The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection" (Guo et al., CVPR 2025, arXiv
2405.14325).

A decoder restores the features of a frozen vision transformer. Four simple things keep it from restoring anomalies too:
universal features, dropout in the bottleneck, attention that cannot focus, and a loose reconstruction.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax import losses
from iadjax.backbones import Backbone
from iadjax.detector import Detector, Phase
from iadjax.detectors.families.gradient import copy_variables, init_trained, mean_variables, train_step
from iadjax.detectors.families.loose import (
    Grouped,
    check_decoder,
    check_optimizer,
    embed_groups,
    hardest,
    heads_of,
    loose_cosine,
    loose_optimizer,
    loose_prediction,
    restored_groups,
    tokens_of,
)
from iadjax.detectors.families.options import check_options
from iadjax.nn.transformer import LinearAttention, Mlp, norm

__all__ = ["dinomaly"]


class Block(nn.Module):
    """A decoder layer: linear attention (section 3.4) and a feed-forward network, each normalised before and added."""

    heads: int

    @nn.compact
    def __call__(self, x):
        x = x + LinearAttention(self.heads, name="attn")(norm("norm1")(x))
        return x + Mlp(name="mlp")(norm("norm2")(x))


class Decoder(nn.Module):
    """The noisy bottleneck (section 3.3) and the layers that restore the groups, with the names of the authors' code."""

    depth: int
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, features: Grouped, train: bool = False) -> tuple[jax.Array, ...]:
        x = Mlp(self.dropout, noisy=True, name="bottleneck_0")(tokens_of(features), train)
        outputs = []
        for i in range(self.depth):
            x = Block(self.heads, name=f"decoder_{i}")(x)
            outputs.append(x)
        return restored_groups(outputs, features)


def dinomaly(
    backbone: Backbone,
    *,
    layers: Sequence[str] = tuple(f"block{i}" for i in range(3, 11)),
    groups: int = 2,
    depth: int = 8,
    heads: int = 0,
    dropout: float = 0.2,
    special_tokens: bool = True,
    recenter: bool = False,
    easy: float = 0.9,
    easy_steps: int = 1000,
    easy_factor: float = 0.1,
    steps: int = 10000,
    learning_rate: float = 2e-3,
    final_rate: float = 2e-4,
    warmup: int = 100,
    weight_decay: float = 1e-4,
    epsilon: float = 1e-10,
    clip_norm: float = 0.1,
    map_size: int = 256,
    sigma: float = 4.0,
    taps: int = 5,
    top: float = 0.01,
) -> Detector:
    """Builds Dinomaly.

    Map: cosine distance of features, the mean over the groups, in [0, 2], smoothed.

    Args:
      backbone: frozen network; DINOv2 ViT-B/14 with registers in the paper. Levels of one width are needed.
      layers: the levels, in the order of their groups; blocks 3 to 10 of a ViT-S or B, and 5, 7, ..., 19 of a ViT-L.
      groups: how many groups of levels are restored, each as its mean (section 3.5); divides the number of layers.
      depth: layers of the decoder, a multiple of `groups`.
      heads: attention heads of each; 0: one for 64 channels, as the backbones of the paper have.
      dropout: of the bottleneck, before, in and after it; 0.4 for Real-IAD.
      special_tokens: whether class token and registers pass the decoder beside the patches, where the backbone has some.
      recenter: subtract the class token of each level from its patch tokens, the context-aware recentering of Dinomaly2 (arXiv
        2510.17611). Class token and registers then stay out of the decoder.
      easy, easy_steps, easy_factor: the gradient of this fraction of the positions, those that are restored best, is
        multiplied by `easy_factor`; the fraction rises from 0 in the first `easy_steps` steps.
      steps: training steps; 5000 for one category, 50000 for Real-IAD.
      learning_rate, final_rate, warmup, weight_decay, epsilon, clip_norm: of StableAdamW with AMSGrad, see
        `families.loose.loose_optimizer`. For one category the authors take an epsilon of 1e-8.
      map_size: the map is brought to this longer side in pixels, smoothed and scored; 0: the input's.
      sigma, taps: of the Gaussian, which has zeros outside the map; sigma 0: not smoothed.
      top: fraction of the map's pixels, in (0, 1]; the mean of the largest is the image's score.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, layers of different widths, or
        `recenter` on a backbone without class tokens.
    """
    judged = {"map_size": map_size, "sigma": sigma, "taps": taps, "top": top}
    layers = check_decoder(backbone, layers, groups, depth, heads=heads, **judged)
    trained = {"learning_rate": learning_rate, "final_rate": final_rate, "warmup": warmup, "weight_decay": weight_decay}
    trained |= {"epsilon": epsilon, "clip_norm": clip_norm}
    check_optimizer(**trained)
    check_options("[0, 1)", dropout=dropout, easy=easy)
    check_options("[0, inf)", easy_steps=easy_steps, easy_factor=easy_factor)
    check_options("[1, inf)", steps=steps)
    optimizer = loose_optimizer(steps, **trained)

    def embed(frozen, image):
        return embed_groups(backbone, frozen["backbone"], image, layers, groups, special_tokens, recenter)

    def decoder(features):
        return Decoder(depth, heads_of(heads, features.groups[0].shape[-1]), dropout)

    def init(key, frozen, spec):
        del frozen
        features = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), spec.features)
        return init_trained(decoder(features).init(key, features), optimizer)

    def update(key, state, frozen, batch):
        del frozen
        # p rises linearly (section 3.5)
        taken = state.optimizer[-1].count.astype(jnp.float32)
        p = easy * jnp.minimum(taken / easy_steps, 1.0) if easy_steps else easy

        def weigh(distance, valid):
            return jnp.where(distance < hardest(distance, valid, 1 - p), easy_factor, 1.0).astype(distance.dtype)

        def objective(variables):
            features = batch.features
            restored = decoder(features).apply(variables, features, train=True, rngs={"dropout": key})
            return losses.mean(loose_cosine(features, restored, batch.valid, weigh), batch.valid), ({}, {})

        return train_step(state, objective, optimizer)

    def predict(state, frozen, batch):
        del frozen
        features = batch.features
        restored = decoder(features).apply(state.variables, features)
        return loose_prediction(features, restored, batch.image.shape[1:3], **judged)

    def phases(spec):
        del spec
        return (Phase("train", update, steps=steps),)

    return Detector(init, phases, predict, embed, warm_start=copy_variables, merge=mean_variables)
