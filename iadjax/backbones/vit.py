"""Vision transformers (Dosovitskiy et al., ICLR 2021); `vit_specs.py` has the networks, `taps.py` the names of their layers."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.backbones.positions import resize_table, rotary, rotate_pairs
from iadjax.backbones.taps import WINDOWS, patch_weight_name, tap, tap_names
from iadjax.backbones.vit_names import HEAD, rename
from iadjax.backbones.vit_specs import SPECS, Spec
from iadjax.errors import UserError
from iadjax.nn.attention import attend
from iadjax.ops import per_channel

__all__ = ["SPECS", "Mlp", "Spec", "ViT", "vit"]


class LayerScale(nn.Module):
    """A learned weight for every channel."""

    @nn.compact
    def __call__(self, x):
        return x * per_channel(self.param("gamma", nn.initializers.constant(1e-5), x.shape[-1:]), x)


class Attention(nn.Module):
    """Self-attention with one product for queries, keys and values.

    Attributes:
      heads: number of heads.
      positions: sine and cosine of rotary positions, or None.
      value: whether the output of value-value attention comes second, with the same weights (CLIP Surgery, Li et al., 2023).
      causal: whether a token sees only itself and those before it.
    """

    heads: int
    positions: tuple[jax.Array, jax.Array] | None = None
    value: bool = False
    causal: bool = False

    @nn.compact
    def __call__(self, x):
        batch, tokens, dim = x.shape
        qkv = nn.Dense(3 * dim, name="qkv")(x).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = (qkv[:, :, i] for i in range(3))
        if self.positions:
            q, k = (rotate_pairs(each, *self.positions) for each in (q, k))
        project = nn.Dense(dim, name="proj")
        mask = jnp.tri(tokens, dtype=bool) if self.causal else None
        usual = project(attend(q, k, v, mask).reshape(x.shape))
        return (usual, project(attend(v, v, v).reshape(x.shape))) if self.value else usual


class Mlp(nn.Module):
    """Two layers with a GELU between.

    Attributes:
      kind: "gelu", "quick_gelu" (x times the sigmoid of 1.702 x) or "swiglu", whose first layer has a gate as well.
      hidden: width inside; 0 is four times that of the input.
    """

    kind: str = "gelu"
    hidden: int = 0

    @nn.compact
    def __call__(self, x):
        hidden = self.hidden or 4 * x.shape[-1]
        y = nn.Dense(hidden * (2 if self.kind == "swiglu" else 1), name="fc1")(x)
        if self.kind == "swiglu":
            gate, y = jnp.split(y, 2, axis=-1)
            y = nn.silu(gate) * y
        else:
            y = y * nn.sigmoid(1.702 * y) if self.kind == "quick_gelu" else nn.gelu(y, approximate=False)
        return nn.Dense(x.shape[-1], name="fc2")(y)


class Block(nn.Module):
    """Attention and a feed-forward network, each normalised before and added to its input.

    With `value` the output of value-value attention comes second. `spec` is that of an image or a text tower.
    """

    spec: Any
    positions: tuple[jax.Array, jax.Array] | None = None
    value: bool = False
    causal: bool = False

    @nn.compact
    def __call__(self, x):
        spec = self.spec
        scale = (lambda name: LayerScale(name=name)) if spec.layer_scale else (lambda name: lambda y: y)
        norms = (nn.LayerNorm(spec.eps, name=f"norm{i}") for i in (1, 2))
        found = Attention(spec.heads, self.positions, self.value, self.causal, name="attn")(next(norms)(x))
        y, others = found if self.value else (found, None)
        x = x + scale("ls1")(y)
        x = x + scale("ls2")(Mlp(spec.mlp, spec.hidden, name="mlp")(next(norms)(x)))
        return (x, others) if self.value else x


class ViT(nn.Module):
    """Tokens after some blocks, up to the last one in `layers`: patches `[B, h, w, C]`, class token `[B, C]`, registers
    `[B, R, C]`.

    The path with value-value attention has no feed-forward network. It starts from the input of block `value_from` and adds to
    it what value-value attention makes of the usual path's tokens (AnomalyCLIP, Zhou et al., ICLR 2024, section 3.3).
    """

    spec: Spec
    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        spec = self.spec
        taps = {layer: tap(layer, spec.depth) for layer in self.layers if layer not in WINDOWS}
        windows = [layer for layer in self.layers if layer in WINDOWS]
        last = max((each.block for each in taps.values()), default=0)
        first, positions, (height, width) = self._tokens(image)
        norm = nn.LayerNorm(spec.eps, name="norm")
        if windows or any(each.projected for each in taps.values()):
            projection = self.param("proj", nn.initializers.normal(spec.dim**-0.5), (spec.dim, spec.embedding))
        blocks = []
        found, x, start, added = {}, first, first, jnp.zeros((), first.dtype)
        for i in range(1, 1 + (spec.depth if windows else last)):
            value = any(each.value and i <= each.block for each in taps.values()) and i >= spec.value_from
            blocks.append(Block(spec, positions, value, name=f"blocks_{i - 1}"))
            if i > last:
                continue
            start = x if i == spec.value_from else start
            x, others = blocks[-1](x) if value else (blocks[-1](x), None)
            added = added + others if value else added
            for layer, each in taps.items():
                if each.block != i:
                    continue
                y = start + added if each.value else x
                y = norm(y) if each.norm else y
                y = y @ projection if each.projected else y
                special = 1 + spec.distilled + spec.registers
                found[layer] = {
                    "class": y[:, 0],
                    "registers": y[:, special - spec.registers : special],
                    "patches": y[:, special:].reshape(len(y), height, width, -1),
                }[each.part]
        for layer in windows:
            y = _windows(first, height, width, WINDOWS[layer])
            for block in blocks:
                y = block(y)[0] if block.value else block(y)
            y = norm(y[:, 0]) @ projection
            found[layer] = y.reshape(len(first), height + 1 - WINDOWS[layer], width + 1 - WINDOWS[layer], -1)
        return tuple(found[layer] for layer in self.layers)

    def _tokens(self, image: jax.Array):
        """The first block's input, rotary positions or None, and the grid."""
        spec, init = self.spec, nn.initializers.normal(0.02)
        size, clip, learned = (spec.patch, spec.patch), bool(spec.embedding), spec.positions != "rotary"
        x = nn.Conv(spec.dim, size, size, padding="VALID", use_bias=not clip, name="patch_embed_proj")(image)
        batch, height, width, _ = x.shape
        names = ["cls_token"] + ["dist_token"] * spec.distilled
        special = [jnp.concatenate([self.param(name, init, (1, 1, spec.dim)) for name in names], axis=1)]
        positions = None
        if learned:
            # with registers the class token's position is part of the token itself
            placed = 0 if spec.registers else len(names)
            table = self.param("pos_embed", init, (1, placed + spec.grid**2, spec.dim))
            rule = spec.positions if spec.positions != "meta" else "antialias" if spec.registers else "offset"
            x = x + resize_table(table[0, placed:], spec.grid, height, width, rule)
            special = [special[0] + table[:, :placed]] if placed else special
        else:
            positions = tuple(jnp.asarray(each) for each in rotary(height, width, spec.dim // spec.heads))
        if spec.registers:
            special.append(self.param("reg_token", init, (1, spec.registers, spec.dim)))
        prefix = jnp.concatenate(special, axis=1)
        x = jnp.concatenate([jnp.broadcast_to(prefix, (batch, *prefix.shape[1:])), x.reshape(batch, -1, spec.dim)], axis=1)
        return nn.LayerNorm(spec.eps, name="norm_pre")(x) if clip else x, positions, (height, width)


def _windows(x: jax.Array, height: int, width: int, side: int) -> jax.Array:
    """The class token with the patches of each window: `[B, 1 + height * width, C]` to `[B * windows, 1 + side^2, C]`."""
    patches = np.arange(1, 1 + height * width).reshape(height, width)
    found = np.lib.stride_tricks.sliding_window_view(patches, (side, side)).reshape(-1, side * side)
    chosen = np.pad(found, ((0, 0), (1, 0)))
    return x[:, chosen].reshape(-1, chosen.shape[1], x.shape[-1])


def vit(name: str) -> Backbone:
    """The backbone `name`, a key of `SPECS`; layers "block1", "block1.norm" ..., "norm" and others, see `taps.Tap`."""
    spec = SPECS[name]

    def module(layers: Sequence[str]) -> ViT:
        return ViT(spec, check_layers(backbone, layers))

    def init(key, layers):
        # one layer that has the variables of all that are asked for
        taps = [tap("embedding" if layer in WINDOWS else layer, spec.depth) for layer in check_layers(backbone, layers)]
        norm, projected = (any(getattr(each, what) for each in taps) for what in ("norm", "projected"))
        name = f"block{max(each.block for each in taps)}" + ".norm" * norm + ".projected" * projected
        return module((name,)).init(key, jnp.zeros((1, spec.patch, spec.patch, 3)))

    def features(variables, image, layers):
        height, width = image.shape[1:3]
        if height % spec.patch or width % spec.patch:
            near = [max(1, round(side / spec.patch)) * spec.patch for side in (height, width)]
            raise UserError(
                f"{name} needs sides that are multiples of {spec.patch}, got {height}x{width}; set data.resize or data.crop to "
                f"{near[0]}x{near[1]}"
            )
        return module(layers).apply(variables, normalize(image, spec.pixels))

    parts = ("class", "registers") if spec.registers else ("class",)
    backbone = Backbone(
        name=name,
        layers=tap_names(spec.depth, spec.value_from, bool(spec.embedding), parts),
        init=init,
        features=plain_features(features),
        weight_name=patch_weight_name,
        head=HEAD,
        hub=spec.hub,
        rename=lambda tensors: rename(spec, tensors),
    )
    return backbone
