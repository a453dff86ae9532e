"""MemSeg: "A semi-supervised method for image surface defect detection using differences and commonalities" (Yang et al.,
Engineering Applications of AI 2023, arXiv 2205.00908).

A memory holds the features of some normal images. Features of an image, beside their difference to the nearest of those images,
are fused over levels. A decoder segments synthetic defects.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Detector, Phase, Prediction
from iadjax.detectors.families.gradient import Trained, copy_variables, init_trained, train_step
from iadjax.detectors.families.options import check_options
from iadjax.detectors.families.rows import Rows, add_rows, init_rows
from iadjax.errors import UserError
from iadjax.nn.attention import CoordinateAttention
from iadjax.nn.layers import Conv
from iadjax.nn.norms import BatchNorm
from iadjax.synthesis.source import image_source
from iadjax.synthesis.structure import check_foreground, structure_anomaly

__all__ = ["Decoder", "Fusion", "Memory", "memory_distance", "memseg"]


class Memory(NamedTuple):
    """The state.

    Attributes:
      trained: backbone, fusion and decoder.
      memory: of each level, `[N, h, w, C]` of the normal images that are kept.
    """

    trained: Trained
    memory: tuple[Rows, ...]


class FusionBlock(nn.Module):
    """One level: a convolution times coordinate attention, then two convolutions to half of the channels."""

    @nn.compact
    def __call__(self, x: jax.Array, valid: jax.Array | None) -> jax.Array:
        depth = x.shape[-1]
        x = Conv(depth, name="conv1")(x) * CoordinateAttention(name="attn")(x, valid)
        return Conv(depth // 2, name="conv2_1")(Conv(depth // 2, name="conv2_0")(x))


def _enlarge(x: jax.Array, like: jax.Array) -> jax.Array:
    return ops.resize(x, like.shape[1:3], align_corners=True)


class Fusion(nn.Module):
    """The multi-scale feature fusion (section 3.4), with the names of the re-implementation."""

    @nn.compact
    def __call__(self, levels: Sequence[jax.Array], valid: jax.Array | None) -> list[jax.Array]:
        """Levels `[B, h, w, 2 C]`, features and differences, finest first, to `[B, h, w, C]` each."""
        fused = [FusionBlock(name=f"blk{i}")(x, valid) for i, x in enumerate(levels, start=1)]
        masks = [x[..., x.shape[-1] // 2 :].mean(axis=-1, keepdims=True) for x in levels]
        for i in reversed(range(len(levels) - 1)):
            # the deepest level's own features go into the next one before they are weighed
            deeper = Conv(fused[i].shape[-1], name=f"upconv{i + 2}{i + 1}")(_enlarge(fused[i + 1], fused[i]))
            fused[i] = fused[i] + deeper
            masks[i] = masks[i] * _enlarge(masks[i + 1], masks[i])
        return [x * mask for x, mask in zip(fused, masks, strict=True)]


class Decoder(nn.Module):
    """From the deepest level to logits `[B, H, W, 2]`, each level beside what is enlarged.

    Attributes:
      width: channels of the last two steps.
    """

    width: int

    @nn.compact
    def __call__(self, stem, levels, deep, image, valid):
        def up(x, like, features, name):
            x = Conv(features, name=f"{name}_1")(_enlarge(x, like))
            return nn.relu(BatchNorm(name=f"{name}_2")(x, valid))

        x = deep
        for i, level in reversed(list(enumerate(levels, start=1))):
            x = jnp.concatenate([up(x, level, level.shape[-1], f"upconv{i}"), level], axis=-1)
        x = jnp.concatenate([up(x, stem, self.width, "upconv0"), Conv(self.width, name="conv")(stem)], axis=-1)
        return Conv(2, name="final_conv")(up(x, image, self.width, "upconv2mask"))


def memseg(
    backbone: Backbone,
    *,
    layers: Sequence[str] = ("relu", "layer1", "layer2", "layer3", "layer4"),
    num_memory: int = 30,
    width: int = 48,
    textures: str = "",
    foreground: str = "all",
    anomaly_prob: float = 0.5,
    l1_weight: float = 0.6,
    focal_weight: float = 0.4,
    steps: int = 5000,
    learning_rate: float = 3e-3,
    final_rate: float = 1e-4,
    warmup: float = 0.1,
    weight_decay: float = 5e-4,
    top: int = 100,
) -> Detector:
    """Builds MemSeg.

    Map: probability of the class "anomalous", in [0, 1].

    There is no code of the authors. Where the paper is silent, github.com/TooTouch/MemSeg (MIT) is followed: BatchNorm of the
    whole network uses the statistics of each batch in training, and the memory stays as the network was before.

    Args:
      backbone: ResNet-18 in the paper; it begins with its weights.
      layers: the stem, the levels of the memory, and the deepest level. Modules that bear the names of the memory's levels keep
        their weights; all others are trained.
      num_memory: normal images in the memory, drawn at random.
      width: channels of the decoder's last steps.
      textures: folder of images of foreign textures, DTD in the paper; "" draws textures.
      foreground: where defects are drawn: "all", or in objects that are "dark" or "bright" by Otsu's threshold. The paper takes
        the objects; the re-implementation has a threshold for each category.
      anomaly_prob: probability that a training image gets a defect.
      l1_weight, focal_weight: of the losses (eq. 9).
      steps, learning_rate, final_rate, warmup, weight_decay: of AdamW, whose rate rises from `final_rate` in this fraction of
        the steps and falls back to it by a cosine.
      top: the image's score is the mean of so many largest pixels.

    Raises:
      UserError: an option out of its range, or a layer that the backbone does not have; in fitting: no image in `textures`.
    """
    layers = check_layers(backbone, layers)
    if len(layers) < 3:
        raise UserError(f"detector.layers must be a stem, levels of the memory and a deepest level; got {', '.join(layers)}")
    check_foreground(foreground)
    check_options("[1, inf)", num_memory=num_memory, width=width, steps=steps, top=top)
    check_options("[0, 1]", anomaly_prob=anomaly_prob)
    check_options("[0, 1)", warmup=warmup)
    check_options("(0, inf)", learning_rate=learning_rate, final_rate=final_rate)
    check_options("[0, inf)", l1_weight=l1_weight, focal_weight=focal_weight, weight_decay=weight_decay)
    fusion, decoder, source = Fusion(), Decoder(width), image_source(textures)

    def augment(rng, image, draw):
        del draw
        if rng.random() >= anomaly_prob:
            return {"augmented": image, "mask": np.zeros(image.shape[:2], np.uint8)}
        augmented, mask = structure_anomaly(rng, image, source, foreground=foreground)
        return {"augmented": augmented, "mask": mask}

    def extract(variables, image, valid=None):
        """The levels, and the running statistics, moved where `valid` is given."""
        network = {kind: variables[kind]["backbone"] for kind in ("params", "batch_stats")}
        if valid is None:
            return backbone.features(network, image, layers), network["batch_stats"]
        return backbone.features(network, image, layers, train=True, valid=valid)

    def segment(variables, memory, image, valid=None):
        (stem, *levels, deep), stats = extract(variables, image, valid)
        kept = [rows.rows for rows in memory]
        index = jnp.argmin(memory_distance(levels, kept), axis=1)
        # eq. 3: features beside their squared differences to the nearest image
        both = [jnp.concatenate([x, (rows[index] - x) ** 2], axis=-1) for x, rows in zip(levels, kept, strict=True)]
        changed, own = {"backbone": stats}, {kind: variables[kind] for kind in ("params", "batch_stats")}

        def run(module, name, *inputs):
            found, new = module.apply({kind: own[kind][name] for kind in own}, *inputs, valid, mutable="batch_stats")
            changed[name] = new["batch_stats"]
            return found

        logits = run(decoder, "decoder", stem, run(fusion, "msff", both), deep, image)
        return jax.nn.softmax(logits), changed

    def optimizer():
        rate = optax.warmup_cosine_decay_schedule(final_rate, learning_rate, round(warmup * steps), steps, final_rate)

        def label(params):
            kept = {
                name: "kept" if name.startswith(tuple(f"{layer}_" for layer in layers[1:-1])) else "trained"
                for name in params["backbone"]
            }
            return {"backbone": kept, "msff": "trained", "decoder": "trained"}

        return optax.multi_transform(
            {"trained": optax.adamw(rate, weight_decay=weight_decay), "kept": optax.set_to_zero()}, label
        )

    def init(key, frozen, spec):
        # copies: the frozen variables are not the state's to donate
        own = {
            kind: {"backbone": jax.tree.map(jnp.array, frozen["backbone"].get(kind, {}))} for kind in ("params", "batch_stats")
        }
        image = jnp.zeros((1, *spec.image_shape))
        stem, *levels, deep = jax.eval_shape(lambda: extract(own, image)[0])
        stem, *levels, deep = (jnp.zeros(level.shape) for level in (stem, *levels, deep))
        keys = jax.random.split(key)
        drawn = {"msff": fusion.init(keys[0], [jnp.concatenate([x, x], axis=-1) for x in levels], None)}
        drawn["decoder"] = decoder.init(keys[1], stem, levels, deep, image, None)
        variables = {kind: {**own[kind], **{name: each[kind] for name, each in drawn.items()}} for kind in own}
        kept = min(num_memory, spec.num_images)
        return Memory(init_trained(variables, optimizer()), tuple(init_rows(kept, x.shape[1:]) for x in levels))

    def remember(key, state, frozen, batch):
        del key, frozen
        levels = extract(state.trained.variables, batch.image)[0][1:-1]
        # images come in random order; those beyond the room are left out
        memory = tuple(add_rows(rows, x, batch.valid) for rows, x in zip(state.memory, levels, strict=True))
        return Memory(state.trained, memory), {"images": memory[0].count}

    def train(key, state, frozen, batch):
        del key, frozen

        def objective(variables):
            p, changed = segment(variables, state.memory, batch.extra["augmented"], batch.valid)
            mask = batch.extra["mask"]
            l1 = losses.mean(jnp.mean(jnp.abs(p[..., 1] - mask.astype(p.dtype)), axis=(1, 2)), batch.valid)
            focal = losses.mean(losses.focal_of_probabilities(p, mask, 4.0), batch.valid)
            parts = {"loss_l1": l1, "loss_focal": focal}
            return l1_weight * l1 + focal_weight * focal, ({"batch_stats": changed}, parts)

        trained, info = train_step(state.trained, objective, optimizer())
        return Memory(trained, state.memory), info

    def predict(state, frozen, batch):
        del frozen
        maps = segment(state.trained.variables, state.memory, batch.image)[0][..., 1]
        return Prediction(ops.mean_of_largest(maps.reshape(len(maps), -1), top), maps)

    def warm_start(fresh, old):
        return Memory(copy_variables(fresh.trained, old.trained), fresh.memory)

    phases = (Phase("remember", remember), Phase("train", train, steps=steps, augment=augment))
    return Detector(init, lambda spec: phases, predict, warm_start=warm_start)


def memory_distance(levels: Sequence[jax.Array], memory: Sequence[jax.Array]) -> jax.Array:
    """Distances of images to those of the memory, `[B, N]`: the sum over levels of the mean squared difference."""

    def to(rows):
        return sum(jnp.mean((x - row[None]) ** 2, axis=(1, 2, 3)) for x, row in zip(levels, rows, strict=True))

    return jax.lax.map(to, tuple(memory)).T
