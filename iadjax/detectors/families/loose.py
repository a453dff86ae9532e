"""Loose reconstruction: groups of levels are restored as their means, and only the direction of an image's features counts.

Dinomaly (Guo et al., CVPR 2025) and INP-Former (Luo et al., CVPR 2025), which rests on it, share these parts.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from iadjax import losses, ops
from iadjax.backbones import Backbone, check_layers
from iadjax.detector import Prediction
from iadjax.detectors.families.options import check_odd, check_options
from iadjax.detectors.families.schedules import warm_cosine
from iadjax.detectors.families.stable_adamw import stable_adamw
from iadjax.errors import UserError
from iadjax.parallel.axis import all_rows, all_sum

__all__ = [
    "Grouped", "check_decoder", "check_optimizer", "embed_groups", "hardest", "heads_of", "loose_cosine", "loose_optimizer",
    "loose_prediction", "position_mean", "restored_groups", "tokens_of",
]  # fmt: skip


class Grouped(NamedTuple):
    """Features of images.

    Attributes:
      groups: one `[B, h, w, C]` for each group, the mean of its levels.
      special: `[B, S, C]`, class token and registers, the mean of all levels; None where there are none.
    """

    groups: tuple[jax.Array, ...]
    special: jax.Array | None


def check_decoder(backbone: Backbone, layers: Sequence[str], groups: int, depth: int, **options: float) -> tuple[str, ...]:
    """The layers as a tuple.

    Args:
      backbone: has the layers.
      layers: the levels, from the first group to the last.
      groups, depth: number of groups, which divides the number of levels, and of decoder layers, which it divides too.
      options: those of `loose_prediction`, and `heads`.

    Raises:
      UserError: an option out of its range.
    """
    layers = check_layers(backbone, layers)
    check_options("[1, inf)", groups=groups, depth=depth)
    check_options("[0, inf)", heads=options["heads"], map_size=options["map_size"], sigma=options["sigma"])
    check_options("(0, 1]", top=options["top"])
    check_odd(taps=options["taps"])
    if len(layers) % groups or depth % groups:
        raise UserError(
            f"detector.groups must divide the number of detector.layers and detector.depth; got {groups}, {len(layers)} and "
            f"{depth}"
        )
    return layers


def check_optimizer(**options: float) -> None:
    """A UserError where an option of `loose_optimizer` is out of its range."""
    check_options("(0, inf)", **{name: options[name] for name in ("learning_rate", "final_rate", "clip_norm")})
    check_options("[0, inf)", **{name: options[name] for name in ("warmup", "weight_decay", "epsilon")})


def heads_of(heads: int, depth: int) -> int:
    """The number of attention heads: 0 is one for 64 channels, as in DINOv2; a UserError if it does not divide the channels."""
    number = heads or max(1, depth // 64)
    if depth % number:
        raise UserError(f"detector.heads={number} does not divide the {depth} channels of the features; set another one")
    return number


def embed_groups(
    backbone: Backbone, variables: Any, image: jax.Array, layers: Sequence[str], groups: int, special: bool, recenter: bool
) -> Grouped:
    """The frozen network's levels in groups.

    Args:
      backbone, variables, image: the network and its input.
      layers: the levels; each group is the mean of as many successive ones, on the first level's grid.
      groups: their number.
      special: whether class token and registers are kept.
      recenter: subtract the class token of each level from its patch tokens.

    Raises:
      UserError: levels of different widths, or `recenter` with a network that has no class tokens.
    """
    classes = [f"{layer}.class" for layer in layers if f"{layer}.class" in backbone.layers and (special or recenter)]
    registers = [f"{layer}.registers" for layer in layers if f"{layer}.registers" in backbone.layers and special]
    if recenter and len(classes) < len(layers):
        raise UserError(f"detector.recenter subtracts class tokens, and {backbone.name} has none; switch it off")
    found = backbone.features(variables, image, (*layers, *classes, *registers))
    levels, tokens = found[: len(layers)], found[len(layers) :]
    widths = sorted({level.shape[-1] for level in levels})
    if len(widths) > 1:
        raise UserError(
            f"detector.layers of {backbone.name} have {', '.join(map(str, widths))} channels, and their mean is needed; name "
            "layers of one width, such as blocks of a ViT"
        )
    grid = levels[0].shape[1:3]
    levels = [ops.resize(level, grid) for level in levels]
    tokens = [token if token.ndim == 3 else token[:, None] for token in tokens]
    if recenter:
        levels = [level - token[:, :, None] for level, token in zip(levels, tokens[: len(layers)], strict=True)]
    kept = None
    if special and tokens and not recenter:
        parts = [_mean(tokens[start : start + len(layers)]) for start in range(0, len(tokens), len(layers))]
        kept = jnp.concatenate(parts, axis=1)
    return Grouped(_grouped(levels, groups), kept)


def _mean(levels: Sequence[jax.Array]) -> jax.Array:
    return sum(levels) / len(levels)


def _grouped(levels: Sequence[jax.Array], groups: int) -> tuple[jax.Array, ...]:
    size = len(levels) // groups
    return tuple(_mean(levels[i * size : (i + 1) * size]) for i in range(groups))


def tokens_of(features: Grouped) -> jax.Array:
    """What enters the bottleneck: the mean of all levels as tokens `[B, S + h w, C]`, class token and registers first."""
    patches = _mean(features.groups)
    patches = patches.reshape(patches.shape[0], -1, patches.shape[-1])
    return patches if features.special is None else jnp.concatenate([features.special, patches], axis=1)


def restored_groups(outputs: Sequence[jax.Array], features: Grouped) -> tuple[jax.Array, ...]:
    """Outputs `[B, S + h w, C]` of the decoder's layers in groups like those of `features`: the last layers are the first."""
    shape = features.groups[0].shape
    groups = _grouped(outputs[::-1], len(features.groups))
    return tuple(group[:, group.shape[1] - shape[1] * shape[2] :].reshape(shape) for group in groups)


def _distance(x: jax.Array, y: jax.Array) -> jax.Array:
    """1 - cos at every position, `[B, h, w]`."""
    return optax.losses.cosine_distance(x, y, axis=-1, epsilon=1e-16)


def loose_cosine(features: Grouped, restored: Sequence[jax.Array], valid: jax.Array, weigh: Callable) -> jax.Array:
    """The mean over groups of 1 - cos of an image's flattened features; gradients of positions are weighed.

    Args:
      features: the target.
      restored: the groups as the decoder gives them.
      valid: `[B]`, the real rows of the batch.
      weigh: `(distance [B, h, w], valid) -> [B, h, w]`, factors of the gradient at each position of a restored group.

    Returns:
      `[B]`.
    """
    total = 0.0
    for target, group in zip(features.groups, restored, strict=True):
        weight = weigh(jax.lax.stop_gradient(_distance(target, group)), valid)
        total += losses.cosine_distance(target, losses.weigh_gradient(group, weight[..., None]))
    return total / len(restored)


def position_mean(distance: jax.Array, valid: jax.Array) -> jax.Array:
    """The mean of `[B, h, w]` over all positions of the valid rows of the whole batch."""
    number = all_sum(jnp.sum(valid)) * distance[0].size
    total = all_sum(jnp.sum(jnp.where(valid[:, None, None], distance, 0)))
    return total / jnp.maximum(number, 1).astype(distance.dtype)


def hardest(distance: jax.Array, valid: jax.Array, fraction: jax.Array) -> jax.Array:
    """The smallest of the largest distances: those of `fraction` of all positions of the batch's valid rows, at least one."""
    rows, valid = all_rows((distance, valid))
    ordered = jnp.sort(jnp.where(valid[:, None, None], rows, -jnp.inf).reshape(-1))
    number = (jnp.sum(valid) * distance[0].size).astype(jnp.float32) * fraction
    return ordered[ordered.size - jnp.maximum(number.astype(jnp.int32), 1)]


def loose_prediction(
    features: Grouped, restored: Sequence[jax.Array], size: tuple[int, int], map_size: int, sigma: float, taps: int, top: float
) -> Prediction:
    """The mean over groups of the distance at each position, and the mean of its largest values.

    The authors bring the map to the input's size (corners aligned), then to 256 pixels, where they smooth it with a short
    kernel and zeros outside, and score it.

    Args:
      features, restored: the target and its reconstruction.
      size: of the map that is returned.
      map_size: the longer side of the map that is smoothed and scored; 0: that of the input.
      sigma, taps: of the Gaussian; sigma 0: not smoothed.
      top: fraction of the pixels whose mean is the score, at least one pixel.
    """
    distance = _mean([_distance(target, group) for target, group in zip(features.groups, restored, strict=True)])
    maps = ops.anomaly_map(distance, size, align_corners=True)
    scale = map_size / max(size) if map_size else 1
    maps = ops.resize(maps[..., None], tuple(max(1, round(side * scale)) for side in size))[..., 0]
    if sigma:
        maps = ops.kernel_blur(maps, sigma, taps, "zeros")
    score = ops.top_mean(maps.reshape(len(maps), -1), top)
    return Prediction(score, ops.resize(maps[..., None], size)[..., 0])


def loose_optimizer(
    steps: int, learning_rate: float, final_rate: float, warmup: int, weight_decay: float, epsilon: float, clip_norm: float
) -> optax.GradientTransformation:
    """StableAdamW after clipping the norm of all gradients; the rate rises in `warmup` steps and falls by a cosine."""
    rate = warm_cosine(learning_rate, final_rate, steps, warmup)
    return optax.chain(optax.clip_by_global_norm(clip_norm), stable_adamw(rate, weight_decay, epsilon=epsilon))
