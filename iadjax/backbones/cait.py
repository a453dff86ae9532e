"""CaiT (Touvron et al., ICCV 2021): deep vision transformers with talking heads and a weight per channel on every branch.

This has only the blocks of patch tokens; the two blocks of the class token follow them.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from iadjax.backbones.backbone import Backbone, check_layers, normalize, plain_features
from iadjax.backbones.taps import patch_weight_name, tap_names, tapped
from iadjax.backbones.vit import Mlp
from iadjax.errors import UserError
from iadjax.ops import per_channel

__all__ = ["SPECS", "CaiT", "Spec", "cait"]


class Spec(NamedTuple):
    """A CaiT.

    Attributes:
      dim, depth, heads: channels, blocks of patch tokens, attention heads.
      grid: patches of 16 pixels along each side of its images, whose size is fixed.
      hub: where the weights are.
    """

    dim: int
    depth: int
    heads: int
    grid: int
    hub: str


SPECS = {
    "cait_m48": Spec(768, 48, 16, 28, "timm/cait_m48_448.fb_dist_in1k"),
    "cait_s24": Spec(384, 24, 8, 14, "timm/cait_s24_224.fb_dist_in1k"),
}
_PATCH = 16


class TalkingHeads(nn.Module):
    """Self-attention whose logits and weights are mixed between the heads, before and after the softmax."""

    heads: int

    @nn.compact
    def __call__(self, x):
        batch, tokens, dim = x.shape
        qkv = nn.Dense(3 * dim, name="qkv")(x).reshape(batch, tokens, 3, self.heads, -1)
        q, k, v = (qkv[:, :, i] for i in range(3))
        # heads last: the mixing is a linear layer over them
        logits = jnp.einsum("bqhd,bkhd->bqkh", q * q.shape[-1] ** -0.5, k)
        weights = jax.nn.softmax(nn.Dense(self.heads, name="proj_l")(logits), axis=2)
        weights = nn.Dense(self.heads, name="proj_w")(weights)
        return nn.Dense(dim, name="proj")(jnp.einsum("bqkh,bkhd->bqhd", weights, v).reshape(x.shape))


class Block(nn.Module):
    """Attention and a feed-forward network, each normalised before, weighted per channel and added to its input."""

    heads: int

    @nn.compact
    def __call__(self, x):
        for i, branch in ((1, TalkingHeads(self.heads, name="attn")), (2, Mlp(name="mlp"))):
            weight = self.param(f"gamma_{i}", nn.initializers.constant(1e-6), x.shape[-1:])
            x = x + per_channel(weight, x) * branch(nn.LayerNorm(1e-6, name=f"norm{i}")(x))
        return x


class CaiT(nn.Module):
    """Patch tokens after some blocks, see `taps.tapped`."""

    spec: Spec
    layers: tuple[str, ...]

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        spec, size = self.spec, (_PATCH, _PATCH)
        x = nn.Conv(spec.dim, size, size, padding="VALID", name="patch_embed_proj")(image)
        grid = x.shape[:3]
        table = self.param("pos_embed", nn.initializers.normal(0.02), (1, spec.grid**2, spec.dim))
        x = x.reshape(grid[0], -1, spec.dim) + table
        taps = tapped(lambda i, x: Block(spec.heads, name=f"blocks_{i}")(x), x, spec.depth, self.layers)
        return tuple(tap.reshape(*grid, -1) for tap in taps)


def cait(name: str) -> Backbone:
    """The backbone `name`, a key of `SPECS`; layers "block1", "block1.norm" ..., "norm" as those of `vit`.

    Images are 448 x 448 for `cait_m48` and 224 x 224 for `cait_s24`; `features` raises a UserError for other sizes.
    """
    spec = SPECS[name]
    side = _PATCH * spec.grid

    def module(layers: Sequence[str]) -> CaiT:
        return CaiT(spec, check_layers(backbone, layers))

    def init(key, layers):
        return module(layers).init(key, jnp.zeros((1, side, side, 3)))

    def features(variables, image, layers):
        if image.shape[1:3] != (side, side):
            raise UserError(
                f"{name} needs images of {side}x{side}, got {image.shape[1]}x{image.shape[2]}; set data.resize={side}"
            )
        return module(layers).apply(variables, normalize(image))

    backbone = Backbone(
        name=name,
        layers=tap_names(spec.depth),
        init=init,
        features=plain_features(features),
        weight_name=patch_weight_name,
        head=r"cls_token|blocks_token_only\..*|head\.(weight|bias)",
        hub=spec.hub,
        rename=lambda tensors: {key.removeprefix("module."): tensor for key, tensor in tensors.items()},
    )
    return backbone
