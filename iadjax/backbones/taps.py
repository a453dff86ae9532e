"""Intermediate layers of transformers, by name."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax

from iadjax.backbones.weights.names import torch_name

__all__ = ["WINDOWS", "Tap", "patch_weight_name", "tap", "tap_names", "tapped"]

_SHORT = {
    "norm": "norm",
    "class": "norm.class",
    "registers": "norm.registers",
    "dense": "norm.projected",
    "embedding": "norm.projected.class",
}
"""Names of what the last block gives, and the full names without the block."""

WINDOWS = {"windows2": 2, "windows3": 3}
"""CLIP's embeddings of the class token with the patches of a window alone, and the window's side in patches (WinCLIP)."""


class Tap(NamedTuple):
    """What a layer's name says, in its order: "block8", ".value", ".norm", ".projected", ".class" or ".registers".

    Attributes:
      block: whose output it is, from 1.
      value: tokens of the path with value-value attention instead of the usual one.
      norm: after the network's last norm.
      projected: after CLIP's projection, in the space of texts.
      part: "patches", "class" or "registers".
    """

    block: int
    value: bool
    norm: bool
    projected: bool
    part: str


def tap(name: str, depth: int) -> Tap:
    """What `name` says, for a transformer with `depth` blocks; "norm", "class", "registers", "dense" and "embedding" are those
    of the last block."""
    first, *rest = (f"block{depth}." + _SHORT[name] if name in _SHORT else name).split(".")
    part = rest[-1] if rest and rest[-1] in ("class", "registers") else "patches"
    return Tap(int(first[5:]), "value" in rest, "norm" in rest, "projected" in rest, part)


def tap_names(depth: int, value_from: int = 0, projected: bool = False, parts: Sequence[str] = ()) -> tuple[str, ...]:
    """The layers of a transformer, see `Tap`.

    Args:
      depth: its blocks.
      value_from: the first block of the path with value-value attention; 0: there is none.
      projected: whether it has a projection.
      parts: other tokens than patches: "class", "registers".
    """
    names = []
    for i in range(1, depth + 1):
        for value in ("", ".value") if value_from and i >= value_from else ("",):
            for norm in ("", ".norm"):
                for space in ("", ".projected") if projected else ("",):
                    names += [f"block{i}{value}{norm}{space}{part}" for part in ("", *(f".{part}" for part in parts))]
    windows = WINDOWS if projected else ()
    return (*names, *(short for short, full in _SHORT.items() if f"block{depth}.{full}" in names), *windows)


def tapped(block: Callable, x: jax.Array, depth: int, layers: Sequence[str]) -> list[jax.Array]:
    """Patch tokens at the `layers` of a transformer. The module that owns its blocks and the norm "norm" calls it.

    Args:
      block: `(i, x) -> x`, the block number i from 0.
      x: tokens.
      depth: number of blocks; none above the last one asked for is called.
      layers: "block1" ..., "block1.norm" ..., "norm".
    """
    norm, taps = nn.LayerNorm(1e-6, name="norm"), [tap(layer, depth) for layer in layers]
    outputs = []
    for i in range(max(each.block for each in taps)):
        x = block(i, x)
        outputs.append(x)
    return [norm(outputs[each.block - 1]) if each.norm else outputs[each.block - 1] for each in taps]


def patch_weight_name(path: tuple[str, ...]) -> str:
    """`Backbone.weight_name` of networks on patches: timm's names."""
    return torch_name(path).replace("patch_embed_proj", "patch_embed.proj")
