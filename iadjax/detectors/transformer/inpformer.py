"""INP-Former: "Exploring Intrinsic Normal Prototypes within a Single Image for Universal Anomaly Detection" (Luo et al., CVPR
2025, arXiv 2503.02424).

A few prototypes are drawn from the normal tokens of the image itself. A decoder restores features from these prototypes alone,
so that it has nothing to restore an anomaly from.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from iadjax import losses
from iadjax.backbones import Backbone
from iadjax.detector import Detector
from iadjax.detectors.families.gradient import gradient
from iadjax.detectors.families.loose import (
    Grouped,
    check_decoder,
    check_optimizer,
    embed_groups,
    heads_of,
    loose_cosine,
    loose_optimizer,
    loose_prediction,
    position_mean,
    restored_groups,
    tokens_of,
)
from iadjax.detectors.families.options import check_options
from iadjax.nn.transformer import CrossAttention, Mlp, norm
from iadjax.synthesis.views import NUM_VIEWS, view

__all__ = ["inpformer"]


class Extractor(nn.Module):
    """The INP extractor (section 3.2): prototypes attend to the tokens of the image."""

    heads: int

    @nn.compact
    def __call__(self, prototypes, tokens):
        # the authors' code has one norm for both
        shared = norm("norm1")
        x = prototypes + CrossAttention(self.heads, name="attn")(shared(prototypes), shared(tokens))
        return x + Mlp(name="mlp")(norm("norm2")(x))


class Block(nn.Module):
    """A layer of the INP-guided decoder (section 3.4): what tokens get from the prototypes replaces them; no residual."""

    heads: int

    @nn.compact
    def __call__(self, x, prototypes):
        shared = norm("norm1")
        x = CrossAttention(self.heads, cosine=True, name="attn")(shared(x), shared(prototypes))
        return x + Mlp(name="mlp")(norm("norm2")(x))


class Decoder(nn.Module):
    """Features to their reconstruction and to the prototypes, with the names of the authors' code."""

    num_prototypes: int
    depth: int
    heads: int
    dropout: float

    @nn.compact
    def __call__(self, features: Grouped, train: bool = False) -> tuple[tuple[jax.Array, ...], jax.Array]:
        x = tokens_of(features)
        learned = self.param("prototype_token", nn.initializers.normal(1.0), (self.num_prototypes, x.shape[-1]))
        prototypes = jnp.broadcast_to(learned[None], (len(x), *learned.shape))
        prototypes = Extractor(self.heads, name="aggregation_0")(prototypes, x)
        x = Mlp(self.dropout, name="bottleneck_0")(x, train)
        outputs = []
        for i in range(self.depth):
            x = Block(self.heads, name=f"decoder_{i}")(x, prototypes)
            outputs.append(x)
        return restored_groups(outputs, features), prototypes


def inpformer(
    backbone: Backbone,
    *,
    layers: Sequence[str] = tuple(f"block{i}" for i in range(3, 11)),
    groups: int = 2,
    num_prototypes: int = 6,
    depth: int = 8,
    heads: int = 0,
    dropout: float = 0.0,
    special_tokens: bool = False,
    gamma: float = 3.0,
    coherence: float = 0.2,
    views: bool = False,
    epochs: int = 200,
    learning_rate: float = 1e-3,
    final_rate: float = 1e-4,
    warmup: int = 100,
    weight_decay: float = 1e-4,
    epsilon: float = 1e-10,
    clip_norm: float = 0.1,
    map_size: int = 256,
    sigma: float = 4.0,
    taps: int = 5,
    top: float = 0.01,
) -> Detector:
    """Builds INP-Former.

    Map: cosine distance of features, the mean over the groups, in [0, 2], smoothed.

    Args:
      backbone: frozen network; DINOv2 ViT-B/14 with registers in the paper. Levels of one width are needed.
      layers: the levels, in the order of their groups; blocks 3 to 10 of a ViT-S or B, and 5, 7, ..., 19 of a ViT-L.
      groups: how many groups of levels are restored, each as its mean; divides the number of layers.
      num_prototypes: M of section 3.2.
      depth: layers of the decoder, a multiple of `groups`.
      heads: attention heads; 0: one for 64 channels, as the backbones of the paper have.
      dropout: of the bottleneck, in and after it; 0 in the authors' code.
      special_tokens: whether class token and registers go with the patches, as in anomalib; the authors remove them.
      gamma: of the soft mining loss (section 3.5): the gradient of a position is multiplied by its distance to this power,
        relative to the mean distance of the batch.
      coherence: lambda, the weight of the INP coherence loss (section 3.3).
      views: train on views of the images, each drawn anew from 22: rotated, shifted, mirrored and grey ones. The authors do
        this with few shots, where an epoch of theirs has all views of all images.
      epochs: of training.
      learning_rate, final_rate, warmup, weight_decay, epsilon, clip_norm: of StableAdamW with AMSGrad, see
        `families.loose.loose_optimizer`.
      map_size: the map is brought to this longer side in pixels, smoothed and scored; 0: the input's.
      sigma, taps: of the Gaussian, which has zeros outside the map; sigma 0: not smoothed.
      top: fraction of the map's pixels, in (0, 1]; the mean of the largest is the image's score.

    Raises:
      UserError: an option out of its range, a layer that the backbone does not have, or layers of different widths.
    """
    judged = {"map_size": map_size, "sigma": sigma, "taps": taps, "top": top}
    layers = check_decoder(backbone, layers, groups, depth, heads=heads, **judged)
    trained = {"learning_rate": learning_rate, "final_rate": final_rate, "warmup": warmup, "weight_decay": weight_decay}
    trained |= {"epsilon": epsilon, "clip_norm": clip_norm}
    check_optimizer(**trained)
    check_options("[0, 1)", dropout=dropout)
    check_options("[0, inf)", gamma=gamma, coherence=coherence)
    check_options("[1, inf)", num_prototypes=num_prototypes, epochs=epochs)

    def embed(frozen, image):
        return embed_groups(backbone, frozen["backbone"], image, layers, groups, special_tokens, recenter=False)

    def decoder(features):
        return Decoder(num_prototypes, depth, heads_of(heads, features.groups[0].shape[-1]), dropout)

    def init_variables(key, frozen, spec):
        del frozen
        features = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), spec.features)
        return decoder(features).init(key, features)

    def weigh(distance, valid):
        return (distance / position_mean(distance, valid)[None, None, None]) ** gamma

    def augment(rng, image, draw):
        del draw
        return {"view": view(image, int(rng.integers(NUM_VIEWS)))}

    def loss(key, variables, frozen, batch):
        features = embed(frozen, batch.extra["view"]) if views else batch.features
        restored, prototypes = decoder(features).apply(variables, features, train=True, rngs={"dropout": key})
        mined = loose_cosine(features, restored, batch.valid, weigh)
        # every token has a prototype near it
        distance = optax.losses.cosine_distance(tokens_of(features)[:, :, None], prototypes[:, None], axis=-1, epsilon=1e-16)
        coherent = jnp.mean(jnp.min(distance, axis=2), axis=1)
        parts = {"loss_mining": losses.mean(mined, batch.valid), "loss_coherence": losses.mean(coherent, batch.valid)}
        return parts["loss_mining"] + coherence * parts["loss_coherence"], ({}, parts)

    def predict(variables, frozen, batch):
        del frozen
        features = batch.features
        restored, _ = decoder(features).apply(variables, features)
        return loose_prediction(features, restored, batch.image.shape[1:3], **judged)

    def optimizer(spec):
        return loose_optimizer(epochs * spec.steps_per_epoch, **trained)

    changed = {"augment": augment} if views else {}
    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs, **changed)
