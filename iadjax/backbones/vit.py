"""Vision transformers (Dosovitskiy et al., ICLR 2021): DINOv2 with and without registers, and a distilled DeiT.

DINOv2: Oquab et al., TMLR 2024; registers: Darcet et al., ICLR 2024; DeiT: Touvron et al., ICML 2021.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.backbones.taps import patch_weight_name, tap_names, tapped
from iadjax.errors import UserError
from iadjax.ops import per_channel

__all__ = ["SPECS", "Mlp", "Spec", "ViT", "position_matrix", "vit"]


class Spec(NamedTuple):
    """A vision transformer.

    Attributes:
      patch: side of a patch in pixels.
      dim, depth, heads: channels, blocks, attention heads.
      grid: patches along each side of the images that it was trained on.
      registers: extra tokens without a position.
      distilled: whether a distillation token follows the class token.
      layer_scale: whether every residual branch has a weight per channel.
      hub: where the weights are.
    """

    patch: int
    dim: int
    depth: int
    heads: int
    grid: int
    registers: int
    distilled: bool
    layer_scale: bool
    hub: str


def _dinov2(size: str, dim: int, depth: int, heads: int) -> dict[str, Spec]:
    letter = size[0]
    return {
        f"dinov2_vit{letter}14{suffix}": Spec(
            14, dim, depth, heads, 37, number, False, True, f"timm/vit_{size}_patch14_{kind}dinov2.lvd142m"
        )
        for suffix, number, kind in (("", 0, ""), ("_reg", 4, "reg4_"))
    }


SPECS = {
    **_dinov2("small", 384, 12, 6),
    **_dinov2("base", 768, 12, 12),
    **_dinov2("large", 1024, 24, 16),
    "deit_base_distilled_patch16_384": Spec(
        16, 768, 12, 12, 24, 0, True, False, "timm/deit_base_distilled_patch16_384.fb_in1k"
    ),
}


class LayerScale(nn.Module):
    """A learned weight for every channel."""

    @nn.compact
    def __call__(self, x):
        return x * per_channel(self.param("gamma", nn.initializers.constant(1e-5), x.shape[-1:]), x)


class Attention(nn.Module):
    """Self-attention with one product for queries, keys and values."""

    heads: int

    @nn.compact
    def __call__(self, x):
        batch, tokens, dim = x.shape
        qkv = nn.Dense(3 * dim, name="qkv")(x).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = (qkv[:, :, i] for i in range(3))
        weights = jax.nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", q * q.shape[-1] ** -0.5, k))
        return nn.Dense(dim, name="proj")(jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape))


class Mlp(nn.Module):
    """Two layers with a GELU between, four times as wide inside."""

    @nn.compact
    def __call__(self, x):
        y = nn.gelu(nn.Dense(4 * x.shape[-1], name="fc1")(x), approximate=False)
        return nn.Dense(x.shape[-1], name="fc2")(y)


class Block(nn.Module):
    """Attention and a feed-forward network, each normalised before and added to its input."""

    heads: int
    layer_scale: bool

    @nn.compact
    def __call__(self, x):
        for i, branch in ((1, Attention(self.heads, name="attn")), (2, Mlp(name="mlp"))):
            y = branch(nn.LayerNorm(1e-6, name=f"norm{i}")(x))
            x = x + (LayerScale(name=f"ls{i}")(y) if self.layer_scale else y)
        return x


class ViT(nn.Module):
    """Patch tokens after some blocks, up to the last one in `layers`.

    "block8" is the output of the eighth block, "block8.norm" the same after the network's last norm, "norm" that of the last
    block after this norm.
    """

    spec: Spec
    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        spec, init = self.spec, nn.initializers.normal(0.02)
        size = (spec.patch, spec.patch)
        x = nn.Conv(spec.dim, size, size, padding="VALID", name="patch_embed_proj")(image)
        batch, height, width, _ = x.shape
        names = ["cls_token"] + ["dist_token"] * spec.distilled
        special = [self.param(name, init, (1, 1, spec.dim)) for name in names]
        # with registers the class token's position is part of the token itself
        placed = 0 if spec.registers else len(special)
        table = self.param("pos_embed", init, (1, placed + spec.grid**2, spec.dim))
        x = (x + self._positions(table[0, placed:], height, width)).reshape(batch, -1, spec.dim)
        special = jnp.concatenate(special, axis=1)
        prefix = [special + table[:, :placed] if placed else special]
        if spec.registers:
            prefix.append(self.param("reg_token", init, (1, spec.registers, spec.dim)))
        prefix = jnp.concatenate(prefix, axis=1)
        x = jnp.concatenate([jnp.broadcast_to(prefix, (batch, *prefix.shape[1:])), x], axis=1)
        block = lambda i, x: Block(spec.heads, spec.layer_scale, name=f"blocks_{i}")(x)  # noqa: E731
        taps = tapped(block, x, spec.depth, self.layers)
        return tuple(tap[:, prefix.shape[1] :].reshape(batch, height, width, -1) for tap in taps)

    def _positions(self, table: jax.Array, height: int, width: int) -> jax.Array:
        """`[grid^2, C]` positions on another grid, `[1, height, width, C]`."""
        grid = self.spec.grid
        table = table.reshape(grid, grid, -1)
        if (height, width) != (grid, grid):
            rows, columns = (jnp.asarray(position_matrix(grid, n, bool(self.spec.registers))) for n in (height, width))
            table = jnp.einsum("ia,jb,abc->ijc", rows, columns, table, precision="highest")
        return table[None]


@lru_cache
def position_matrix(source: int, target: int, antialias: bool) -> np.ndarray:
    """`[target, source]` weights of the bicubic resize of positions, as in DINOv2's code.

    Models without registers scale by (target + 0.1) / source and take four taps (a = -0.75, the border repeats). Models with
    registers scale exactly; where the target is smaller, they widen the filter (a = -0.5, cut off at the border).
    """
    if antialias:
        scale = source / target
        width = max(1.0, scale)
        centre = (np.arange(target)[:, None] + 0.5) * scale
        weights = _cubic((np.arange(source)[None] + 0.5 - centre) / width, -0.5)
        return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    position = (np.arange(target) + 0.5) * source / (target + 0.1) - 0.5
    weights = np.zeros((target, source))
    for offset in range(-1, 3):
        tap = np.floor(position).astype(int) + offset
        np.add.at(weights, (np.arange(target), np.clip(tap, 0, source - 1)), _cubic(position - tap, -0.75))
    return weights.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic convolution kernel (1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x**2 + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def vit(name: str) -> Backbone:
    """The backbone `name`, a key of `SPECS`; layers "block1", "block1.norm" ..., "norm" (DINOv2's normalised patch tokens)."""
    spec = SPECS[name]

    def module(layers: Sequence[str]) -> ViT:
        return ViT(spec, check_layers(backbone, layers))

    def init(key, layers):
        return module(layers).init(key, jnp.zeros((1, spec.patch, spec.patch, 3)))

    def features(variables, image, layers):
        height, width = image.shape[1:3]
        if height % spec.patch or width % spec.patch:
            near = [max(1, round(side / spec.patch)) * spec.patch for side in (height, width)]
            raise UserError(
                f"{name} needs sides that are multiples of {spec.patch}, got {height}x{width}; set data.resize or data.crop to "
                f"{near[0]}x{near[1]}"
            )
        return module(layers).apply(variables, normalize(image))

    backbone = Backbone(
        name=name,
        layers=tap_names(spec.depth),
        init=init,
        features=plain_features(features),
        weight_name=patch_weight_name,
        head=r"(head|head_dist)\.(weight|bias)|mask_token",
        hub=spec.hub,
        rename=lambda tensors: _rename(spec, tensors),
    )
    return backbone


def _rename(spec: Spec, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of the authors' files and of Hugging Face's `facebook/dinov2-*` under timm's names."""
    renamed = {}
    replacements = (
        ("embeddings.patch_embeddings.projection", "patch_embed.proj"),
        ("embeddings.position_embeddings", "pos_embed"),
        ("embeddings.", ""),
        ("register_tokens", "reg_token"),
        ("encoder.layer.", "blocks."),
        ("attention.output.dense", "attn.proj"),
        ("layer_scale1.lambda1", "ls1.gamma"),
        ("layer_scale2.lambda1", "ls2.gamma"),
        ("layernorm.", "norm."),
    )
    for name, tensor in tensors.items():
        for old, new in replacements:
            name = name.replace(old, new)
        renamed[name] = tensor
    for i in range(spec.depth):
        for kind in ("weight", "bias"):
            parts = [f"blocks.{i}.attention.attention.{part}.{kind}" for part in ("query", "key", "value")]
            if all(part in renamed for part in parts):
                renamed[f"blocks.{i}.attn.qkv.{kind}"] = np.concatenate([renamed.pop(part) for part in parts])
    table = renamed.get("pos_embed")
    if spec.registers and table is not None and table.shape[1] == spec.grid**2 + 1 and "cls_token" in renamed:
        renamed["cls_token"] = renamed["cls_token"] + table[:, :1]
        renamed["pos_embed"] = table[:, 1:]
    return renamed
