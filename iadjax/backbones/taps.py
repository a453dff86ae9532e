"""Intermediate layers of transformers, with or without the network's last norm."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from iadjax.backbones.weights.names import torch_name

__all__ = ["patch_weight_name", "tap_names", "tapped"]


def tapped(block: Callable, x: jax.Array, depth: int, layers: Sequence[str]) -> list[jax.Array]:
    """Tokens at the `layers` of a transformer. The module that owns its blocks and the norm "norm" calls it.

    Args:
      block: `(i, x) -> x`, the block number i from 0.
      x: tokens.
      depth: number of blocks; none above the last one asked for is called.
      layers: "block1" ..., "block1.norm" ..., "norm".
    """
    norm, taps = nn.LayerNorm(1e-6, name="norm"), {}
    names = [f"block{depth}.norm" if layer == "norm" else layer for layer in layers]
    for i in range(max(int(name.removesuffix(".norm")[5:]) for name in names)):
        x = block(i, x)
        name = f"block{i + 1}"
        taps[name] = x
        if f"{name}.norm" in names:
            taps[f"{name}.norm"] = norm(x)
    return [taps[name] for name in names]


def tap_names(depth: int) -> tuple[str, ...]:
    """The layers of a transformer with `depth` blocks, see `tapped`."""
    return (*(name for i in range(1, depth + 1) for name in (f"block{i}", f"block{i}.norm")), "norm")


def patch_weight_name(path: tuple[str, ...]) -> str:
    """`Backbone.weight_name` of networks on patches: timm's names."""
    return torch_name(path).replace("patch_embed_proj", "patch_embed.proj")
