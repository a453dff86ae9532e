"""Tensors of vision transformers by the names of Meta, Hugging Face, OpenAI and open_clip, brought to timm's."""

import re
from collections.abc import Mapping

import numpy as np

from iadjax.backbones.vit_specs import Spec

__all__ = ["CLIP_TEXT", "HEAD", "rename", "renamed_tensors"]

HEAD = (
    r"(head|head_dist)\.(weight|bias)|mask_token|local_cls_norm\.(weight|bias)|rope_embed\.periods"
    r"|blocks\.\d+\.attn\.qkv\.bias_mask"
)
"""Names of tensors that no layer needs."""

CLIP_TEXT = re.compile(
    r"(text|text_model|transformer|token_embedding|ln_final|text_projection)\..*|positional_embedding|text_projection"
    r"|logit_scale|logit_bias|input_resolution|context_length|vocab_size"
)
"""Names of the text tower in a file that holds both of CLIP's."""

_REPLACEMENTS = (
    # CLIP: OpenAI and open_clip, then Hugging Face
    (r"^visual\.|^vision_model\.", ""),
    (r"^conv1\.|^embeddings\.patch_embedding\.", "patch_embed.proj."),
    (r"^(embeddings\.)?class_embedding$", "cls_token"),
    (r"^positional_embedding$|^embeddings\.position_embedding\.weight$", "pos_embed"),
    (r"^(ln_pre|pre_layrnorm)\.", "norm_pre."),
    (r"^(ln_post|post_layernorm)\.", "norm."),
    (r"^(transformer\.resblocks|encoder\.layers)\.", "blocks."),
    (r"\.ln_([12])\.|\.layer_norm([12])\.", r".norm\1\2."),
    (r"\.attn\.in_proj_(weight|bias)$", r".attn.qkv.\1"),
    (r"\.(attn|self_attn)\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    # DINOv2 and DINOv3: Hugging Face
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.", ""),
    (r"^(encoder\.layer|model\.layer|layer)\.", "blocks."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.layer_scale([12])\.lambda1$|\.gamma_([12])$", r".ls\1\2.gamma"),
    (r"^layernorm\.", "norm."),
    (r"\.mlp\.(weights_in|w12)\.", ".mlp.fc1."),
    (r"\.mlp\.(weights_out|w3|down_proj)\.", ".mlp.fc2."),
    # Meta
    (r"^(register_tokens|storage_tokens)$", "reg_token"),
)

_QUERIES_KEYS_VALUES = (
    ("attention.attention.query.", "attention.attention.key.", "attention.attention.value."),
    ("attention.q_proj.", "attention.k_proj.", "attention.v_proj."),
    ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."),
)
_GATES = (("mlp.w1.", "mlp.w2."), ("mlp.gate_proj.", "mlp.up_proj."), ("mlp.fc1_g.", "mlp.fc1_x."))


def rename(spec: Spec, tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of a vision transformer under timm's names, in PyTorch's layout.

    Accepted names: timm's; Meta's of DINO, DINOv2, DINOv3; Hugging Face's of `facebook/dinov2-*`, `facebook/dinov3-*` and
    `openai/clip-*`; OpenAI's and open_clip's, whose text tower is left out.
    """
    if spec.embedding:
        both = any(name.startswith(("visual.", "vision_model.")) for name in tensors)
        tensors = {k: v for k, v in tensors.items() if not (both and CLIP_TEXT.fullmatch(k)) and not k.endswith("position_ids")}
    renamed = renamed_tensors(tensors, spec.depth)
    if spec.positions == "rotary":
        for i in range(spec.depth):
            _without_key_bias(spec, renamed, f"blocks.{i}.attn.")
    if spec.embedding:
        for name in ("visual_projection.weight", "head.weight"):
            if name in renamed:
                renamed["proj"] = renamed.pop(name).T
        for name, axes in (("cls_token", (0, 1)), ("pos_embed", (0,))):
            if name in renamed and renamed[name].ndim == 3 - len(axes):
                renamed[name] = np.expand_dims(renamed[name], axes)
    table = renamed.get("pos_embed")
    if spec.registers and table is not None and table.shape[1] == spec.grid**2 + 1 and "cls_token" in renamed:
        renamed["cls_token"] = renamed["cls_token"] + table[:, :1]
        renamed["pos_embed"] = table[:, 1:]
    return renamed


def renamed_tensors(tensors: Mapping[str, np.ndarray], depth: int) -> dict[str, np.ndarray]:
    """The tensors of a transformer with `depth` blocks under timm's names; queries, keys and values become one tensor."""
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, new in _REPLACEMENTS:
            name = re.sub(pattern, new, name)
        renamed[name] = tensor
    for i in range(depth):
        for parts in _QUERIES_KEYS_VALUES:
            _join(renamed, f"blocks.{i}.", parts, "attn.qkv.")
        for pair in (*_GATES, ("mlp.up_proj.",)):
            _join(renamed, f"blocks.{i}.", pair, "mlp.fc1.")
    return renamed


def _join(tensors: dict[str, np.ndarray], start: str, parts: tuple[str, ...], whole: str) -> None:
    """Replaces the tensors `start + part` by their concatenation `start + whole`; a bias that is missing is 0."""
    weights = [f"{start}{part}weight" for part in parts]
    if not all(name in tensors for name in weights):
        return
    found = [tensors.pop(name) for name in weights]
    biases = [tensors.pop(f"{start}{part}bias", None) for part in parts]
    tensors[f"{start}{whole}weight"] = np.concatenate(found)
    if any(bias is not None for bias in biases):
        pairs = zip(found, biases, strict=True)
        tensors[f"{start}{whole}bias"] = np.concatenate([np.zeros(len(w), w.dtype) if b is None else b for w, b in pairs])


def _without_key_bias(spec: Spec, tensors: dict[str, np.ndarray], start: str) -> None:
    """DINOv3 has no bias of keys: Meta's files hold one that is masked, timm's hold those of queries and values or none."""
    weight = tensors.get(f"{start}qkv.weight")
    if weight is None:
        return
    whole = tensors.get(f"{start}qkv.bias", np.zeros(3 * spec.dim, weight.dtype)).copy()
    for part, place in (("q_bias", slice(0, spec.dim)), ("v_bias", slice(2 * spec.dim, None))):
        whole[place] = tensors.pop(f"{start}{part}", whole[place])
    whole[spec.dim : 2 * spec.dim] = 0
    tensors[f"{start}qkv.bias"] = whole
