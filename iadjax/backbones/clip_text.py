"""CLIP's text tower (Radford et al., ICML 2021): a causal transformer over tokens, read at the end of a text."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from iadjax.backbones.backbone import Backbone
from iadjax.backbones.tokenizer import CONTEXT, VOCABULARY
from iadjax.backbones.vit import Block
from iadjax.backbones.vit_names import CLIP_TEXT, renamed_tensors
from iadjax.backbones.vit_specs import SPECS
from iadjax.backbones.weights.names import torch_name

__all__ = ["TEXT_SPECS", "TextSpec", "TextTower", "clip_text"]


class TextSpec(NamedTuple):
    """A text tower.

    Attributes:
      dim, depth, heads: channels, blocks, attention heads.
      embedding: channels that it has in common with images.
      mlp, eps, hidden, layer_scale: as in `vit_specs.Spec`.
      hub: where the weights are: the file of both towers.
      context, vocabulary: tokens of a text, and how many tokens there are.
    """

    dim: int
    depth: int
    heads: int
    embedding: int
    mlp: str
    hub: str
    context: int = CONTEXT
    vocabulary: int = VOCABULARY
    eps: float = 1e-5
    hidden: int = 0
    layer_scale: bool = False


TEXT_SPECS = {
    f"{name}_text": TextSpec(spec.embedding, 12, spec.embedding // 64, spec.embedding, spec.mlp, spec.hub)
    for name, spec in SPECS.items()
    if spec.embedding and spec.positions == "antialias"
}
"""The towers beside the CLIP networks of `vit_specs.SPECS`; all of them are as wide as their embedding."""


class TextTower(nn.Module):
    """Embeddings of texts.

    `__call__(ids [N, L] int32, prompts=None, deep=()) -> [N, embedding]`: `prompts [N, P, C]` takes the place of the
    embeddings of tokens 1 to P, and `deep[i] [P, C]` that of tokens 1 to P before block i + 2 (compound prompts of MaPLe,
    Khattak et al., CVPR 2023, as AnomalyCLIP uses them).
    """

    spec: TextSpec

    @nn.compact
    def __call__(self, ids: jax.Array, prompts: jax.Array | None = None, deep: Sequence[jax.Array] = ()) -> jax.Array:
        spec, init = self.spec, nn.initializers.normal(0.02)
        table = self.param("token_embedding", init, (spec.vocabulary, spec.dim))
        positions = self.param("pos_embed", nn.initializers.normal(0.01), (spec.context, spec.dim))
        x = table[ids]
        if prompts is not None:
            x = _placed(x, prompts)
        x = x + positions[None, : ids.shape[1]]
        for i in range(spec.depth):
            if 1 <= i <= len(deep):
                x = _placed(x, deep[i - 1])
            x = Block(spec, causal=True, name=f"blocks_{i}")(x)
        projection = self.param("proj", nn.initializers.normal(spec.dim**-0.5), (spec.dim, spec.embedding))
        # the end token has the largest id
        end = jnp.take_along_axis(x, jnp.argmax(ids, axis=1)[:, None, None], axis=1)[:, 0]
        return nn.LayerNorm(spec.eps, name="norm")(end) @ projection


def _placed(x: jax.Array, prompts: jax.Array) -> jax.Array:
    """`x [N, L, C]` with `prompts [N or nothing, P, C]` from the second token on."""
    prompts = jnp.broadcast_to(prompts, (len(x), *prompts.shape[-2:]))
    return jnp.concatenate([x[:, :1], prompts, x[:, 1 + prompts.shape[1] :]], axis=1)


def clip_text(name: str) -> Backbone:
    """The text tower `name`, a key of `TEXT_SPECS`, as a network for `config.networks`.

    Its only layer is "embedding", and `features(variables, ids [N, L] int32, prompts=None, deep=()) -> [N, embedding]`, see
    `TextTower`. `tokenizer.tokenize` makes the ids.
    """
    spec = TEXT_SPECS[name]
    tower = TextTower(spec)
    return Backbone(
        name=name,
        layers=("embedding",),
        init=lambda key, layers: tower.init(key, jnp.zeros((1, spec.context), jnp.int32)),
        features=tower.apply,
        weight_name=lambda path: "token_embedding.weight" if path[-1] == "token_embedding" else torch_name(path),
        head=r"logit_scale|logit_bias|input_resolution|context_length|vocab_size",
        hub=spec.hub,
        rename=lambda tensors: _rename(spec, tensors),
    )


def _rename(spec: TextSpec, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The text tower's tensors of a file that may hold both, by the names of OpenAI, open_clip and Hugging Face."""
    texts = {}
    for name, tensor in tensors.items():
        if CLIP_TEXT.fullmatch(name) and not name.endswith("position_ids"):
            name = re.sub(r"^(text_model|text)\.", "", name)
            name = re.sub(r"^embeddings\.token_embedding\.", "token_embedding.", name)
            texts[re.sub(r"^(ln_final|final_layer_norm)\.", "norm.", name)] = tensor
    if "text_projection.weight" in texts:
        texts["proj"] = texts.pop("text_projection.weight").T
    elif "text_projection" in texts:
        texts["proj"] = texts.pop("text_projection")
    return renamed_tensors(texts, spec.depth)
