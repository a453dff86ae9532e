"""GeneralAD: "Anomaly Detection Across Domains by Attending to Distorted Features" (Strater et al., ECCV 2024, arXiv
2407.12427).

A discriminator attends over the patches of an image and scores each of them. It learns from features of normal images and from
distorted ones, to all or some of whose patches noise is added.
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
from iadjax.nn.attention import MultiheadAttention
from iadjax.nn.layers import Dropout, linear
from iadjax.parallel.axis import all_sum, own_rows

__all__ = ["generalad"]


class Block(nn.Module):
    """Attention, normalised after its residual, and a feed-forward network whose residual is not normalised."""

    heads: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, x, train):
        def drop(y):
            return Dropout(self.dropout, deterministic=not train)(y)

        depth = x.shape[-1]
        y = MultiheadAttention(self.heads, self.dropout, name="attn")(x, x, x, train=train)
        x = nn.LayerNorm(1e-5, name="layer_norm")(x + drop(y))
        y = drop(nn.gelu(linear(self.hidden, depth, "linear_0")(x), approximate=False))
        return x + drop(linear(depth, self.hidden, "linear_3")(y))


class Discriminator(nn.Module):
    """Features `[B, h, w, C]` to a logit for each patch, `[B, h w]`; with the names of the authors' code."""

    depth: int
    heads: int
    hidden: int
    dropout: float

    @nn.compact
    def __call__(self, features: jax.Array, train: bool = False) -> jax.Array:
        x = features.reshape(features.shape[0], -1, features.shape[-1])
        x = x + self.param("positional_encodings", nn.initializers.normal(1.0), x.shape[1:])[None]
        for i in range(self.depth):
            x = Block(self.heads, self.hidden, self.dropout, name=f"transformer_encoder_{i}")(x, train)
        return linear(1, x.shape[-1], "output_layer", bias=False)(x)[..., 0]


def generalad(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("norm",),
    noise: float = 0.25,
    shuffle: bool = False,
    hidden: int = 2048,
    depth: int = 1,
    heads: int = 4,
    dropout: float = 0.1,
    epochs: int = 160,
    learning_rate: float = 5e-4,
    final_factor: float = 0.2,
    weight_decay: float = 1e-5,
    top_k: int = 10,
    sigma: float = 16.0,
    radius: int = 18,
) -> Detector:
    """Builds GeneralAD.

    Map: logit of the discriminator, positive where a patch looks distorted, smoothed.

    Args:
      backbone: frozen network; DINOv2 ViT-L/14 in the paper.
      layers: the features, the last tokens after the last norm in the paper; several are concatenated on the first grid.
      noise: standard deviation of the noise on all patches of one copy and on some of another.
      shuffle: whether some patches of a third copy change places. The authors have this for MVTec LOCO and choose the patches
        by the attention of the class token; here they are drawn.
      hidden, depth, heads, dropout: of the discriminator.
      epochs, learning_rate, final_factor, weight_decay: AdamW's; the rate falls by a cosine, epoch by epoch, to `final_factor`
        of its first value.
      top_k: the image's score is the mean logit of so many patches.
      sigma, radius: of the Gaussian that smooths the map, in pixels of the input; sigma 0 = off.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have.
    """
    layers = check_layers(backbone, layers)
    check_options("(0, inf)", noise=noise, learning_rate=learning_rate)
    check_options("[1, inf)", hidden=hidden, depth=depth, heads=heads, epochs=epochs, top_k=top_k)
    check_options("[0, 1)", dropout=dropout)
    check_options("[0, 1]", final_factor=final_factor)
    check_options("[0, inf)", weight_decay=weight_decay, sigma=sigma, radius=radius)
    network = Discriminator(depth, heads, hidden, dropout)

    def embed(frozen, image):
        return ops.concatenate_levels(backbone.features(frozen["backbone"], image, layers))

    def init_variables(key, frozen, spec):
        del frozen
        channels = spec.features.shape[-1]
        if channels % heads:
            raise UserError(f"detector.heads={heads} does not divide the {channels} channels of the features; set another one")
        return network.init(key, jnp.zeros(spec.features.shape))

    def loss(key, variables, frozen, batch):
        del frozen
        features, valid = batch.features, batch.valid
        keys = jax.random.split(key, 4)
        dropouts = iter(jax.random.split(keys[3], 4))

        def judged(x):
            return network.apply(variables, x, train=True, rngs={"dropout": next(dropouts)})

        def apart(logits, distorted):
            """Binary cross entropy, of all distorted patches of the batch and of all others."""
            total = 0.0
            for label, where in ((1.0, distorted), (0.0, ~distorted)):
                where = where & valid[:, None]
                number = jnp.maximum(all_sum(jnp.sum(where)), 1).astype(logits.dtype)
                total += jnp.sum(jnp.where(where, _cross_entropy(logits, label), 0)) / number
            return total

        parts = {"loss_normal": losses.mean(jnp.mean(_cross_entropy(judged(features), 0.0), axis=1), valid)}
        noised = features + noise * draw_noise(keys[0], features.shape)
        parts["loss_noised"] = losses.mean(jnp.mean(_cross_entropy(judged(noised), 1.0), axis=1), valid)
        chosen = draw_patches(keys[1], features.shape)
        noised = features + noise * draw_noise(keys[2], features.shape)
        some = jnp.where(chosen.reshape(*features.shape[:3], 1), noised, features)
        parts["loss_some"] = apart(judged(some), chosen)
        if shuffle:
            shuffle_key, order_key = jax.random.split(keys[1])
            chosen = draw_patches(shuffle_key, features.shape)
            parts["loss_shuffled"] = apart(judged(shuffled(order_key, features, chosen)), chosen)
        return sum(parts.values()), ({}, parts)

    def predict(variables, frozen, batch):
        del frozen
        logits = network.apply(variables, batch.features)
        score = jnp.mean(jax.lax.top_k(logits, min(top_k, logits.shape[1]))[0], axis=1)
        maps = ops.anomaly_map(logits.reshape(batch.features.shape[:3]), batch.image.shape[1:3])
        return Prediction(score, ops.gaussian_blur(maps, sigma, radius / sigma) if sigma else maps)

    def optimizer(spec):
        falling = optax.cosine_decay_schedule(learning_rate, epochs, final_factor)
        return optax.adamw(lambda step: falling(step // spec.steps_per_epoch), weight_decay=weight_decay)

    return gradient(init_variables, loss, predict, optimizer, embed=embed, epochs=epochs)


def _cross_entropy(logits: jax.Array, label: float) -> jax.Array:
    return nn.softplus(-logits if label else logits)


def draw_noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal numbers of the shape of a batch."""
    return own_rows(lambda rows: jax.random.normal(key, (rows, *shape[1:])), shape[0])


def draw_patches(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Patches of each image of a batch of features `[B, h, w, C]`, between one and all of them: `[B, h w]` bool."""
    patches = shape[1] * shape[2]
    count_key, order_key = jax.random.split(key)
    count = own_rows(lambda rows: jax.random.randint(count_key, (rows, 1), 1, patches + 1), shape[0])
    order = own_rows(lambda rows: jax.random.uniform(order_key, (rows, patches)), shape[0])
    return jnp.argsort(jnp.argsort(order, axis=1), axis=1) < count


def shuffled(key: jax.Array, features: jax.Array, chosen: jax.Array) -> jax.Array:
    """Features `[B, h, w, C]` whose chosen patches `[B, h w]` have changed places among themselves."""
    batch, patches = chosen.shape
    order = own_rows(lambda rows: jax.random.uniform(key, (rows, patches)), batch)
    # those that are not chosen come last, in their order, and stay
    place = jnp.arange(patches, dtype=order.dtype)[None]
    to = jnp.argsort(jnp.where(chosen, place, place + patches), axis=1)
    source = jnp.argsort(jnp.where(chosen, order, place + 1), axis=1)
    flat = features.reshape(batch, patches, -1)
    moved = jax.vmap(lambda x, to, source: jnp.zeros_like(x).at[to].set(x[source]))(flat, to, source)
    return moved.reshape(features.shape)
