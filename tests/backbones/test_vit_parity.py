"""Vision transformers, token by token, against the code of Hugging Face and open_clip (cards)."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from iadjax import backbones
from iadjax.backbones.vit import SPECS, Spec, vit
from tests.parity import harness
from tests.parity.harness import Card

DINOV2 = Spec(4, 32, 3, 2, 5, registers=0, distilled=False, layer_scale=True, hub="", mlp="swiglu", hidden=88)
DINOV3 = DINOV2._replace(grid=4, registers=4, positions="rotary", eps=1e-5, hidden=48, mlp="gelu")
CLIP = Spec(4, 32, 3, 2, 5, 0, False, False, "", "exact", mlp="quick_gelu", eps=1e-5, embedding=16, value_from=2, pixels="clip")
CASES = {
    "dinov2_swiglu": DINOV2,
    "dinov2_swiglu_registers": DINOV2._replace(registers=4),
    "dinov3": DINOV3,
    "dinov3_gated": DINOV3._replace(mlp="swiglu"),
    "clip_hugging_face": CLIP,
    "open_clip": CLIP._replace(mlp="gelu"),
}


def load(monkeypatch, card, name):
    monkeypatch.setitem(SPECS, "card", CASES[name])
    backbone = vit("card")
    return backbone, backbones.convert(backbone, card.tensors, backbone.layers)


def tokens(backbone, variables, image, name):
    """All tokens `[B, 1 + R + h w, C]` of a layer, in the order of the cards."""
    parts = [f"{name}.class", f"{name}.registers", name] if f"{name}.registers" in backbone.layers else [f"{name}.class", name]
    found = backbone.features(variables, jnp.asarray(image), tuple(parts))
    return jnp.concatenate([x.reshape(len(image), -1, x.shape[-1]) for x in found], axis=1)


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_block_equals_the_authors_code(monkeypatch, name):
    card = Card(name)
    backbone, variables = load(monkeypatch, card, name)
    for i in (1, 2, 3):
        card.check(f"block{i}", tokens(backbone, variables, card["image"], f"block{i}"))
    if name.startswith("dino"):
        card.check("norm", tokens(backbone, variables, card["image"], "block3.norm"))


def test_clip_embeds_in_the_space_of_texts(monkeypatch):
    for name in ("clip_hugging_face", "open_clip"):
        card = Card(name)
        backbone, variables = load(monkeypatch, card, name)
        embedding, dense = backbone.features(variables, card["image"], ("embedding", "dense"))
        card.check("embedding", embedding)
    card.check("dense", dense.reshape(2, 25, 16))


def test_clip_at_another_size(monkeypatch):
    card = Card("clip_hugging_face")
    backbone, variables = load(monkeypatch, card, "clip_hugging_face")
    card.check("large_block3", tokens(backbone, variables, card["large"], "block3"))
    card.check("large_embedding", backbone.features(variables, card["large"], ("embedding",))[0])


def test_the_path_with_value_value_attention(monkeypatch):
    """In float64, from the usual path's tokens: each block from `value_from` on adds attention of values to values."""
    card = Card("open_clip")
    backbone, variables = load(monkeypatch, card, "open_clip")
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    inputs = [np.asarray(tokens(backbone, variables, card["image"], f"block{i}"), np.float64) for i in (1, 2)]
    path = inputs[0]
    for x, block in zip(inputs, (params["blocks_1"], params["blocks_2"]), strict=True):
        y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        y = y * block["norm1"]["scale"] + block["norm1"]["bias"]
        v = (y @ block["attn"]["qkv"]["kernel"] + block["attn"]["qkv"]["bias"])[..., 64:].reshape(*x.shape[:2], 2, 16)
        weights = np.exp(np.einsum("bqhd,bkhd->bhqk", v, v) / 4)
        mixed = np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v).reshape(x.shape)
        path = path + mixed @ block["attn"]["proj"]["kernel"] + block["attn"]["proj"]["bias"]
    harness.close(tokens(backbone, variables, card["image"], "block3.value"), path)


def test_names_of_timm_and_meta_for_dinov3(monkeypatch):
    """The biases of keys are 0, whether a file has none, only those of queries and values, or a masked one."""
    card = Card("dinov3_gated")
    backbone, variables = load(monkeypatch, card, "dinov3_gated")
    theirs, meta, timm = card.tensors, {}, {}
    for name, tensor in theirs.items():
        if name.startswith("embeddings"):
            short = name.removeprefix("embeddings.").replace("patch_embeddings", "patch_embed.proj")
            meta[short.replace("register", "storage")] = timm[short.replace("register_tokens", "reg_token")] = tensor
        elif name.startswith("norm"):
            meta[name] = timm[name] = tensor
    for i in range(3):
        old, new = f"model.layer.{i}.", f"blocks.{i}."
        q, k, v = (theirs[f"{old}attention.{part}_proj.weight"] for part in "qkv")
        meta[f"{new}attn.qkv.weight"] = timm[f"{new}attn.qkv.weight"] = np.concatenate([q, k, v])
        q, v = (theirs[f"{old}attention.{part}_proj.bias"] for part in "qv")
        meta[f"{new}attn.qkv.bias"] = np.concatenate([q, np.ones(32, np.float32), v])
        meta[f"{new}attn.qkv.bias_mask"] = np.repeat(np.float32([1, 0, 1]), 32)
        timm |= {f"{new}attn.q_bias": q, f"{new}attn.v_bias": v}
        for kind in ("weight", "bias"):
            proj = theirs[f"{old}attention.o_proj.{kind}"]
            meta[f"{new}attn.proj.{kind}"] = timm[f"{new}attn.proj.{kind}"] = proj
            for norm in ("norm1", "norm2"):
                meta[f"{new}{norm}.{kind}"] = timm[f"{new}{norm}.{kind}"] = theirs[f"{old}{norm}.{kind}"]
            for part, metas, timms in (("gate", "w1", "fc1_g"), ("up", "w2", "fc1_x"), ("down", "w3", "fc2")):
                tensor = theirs[f"{old}mlp.{part}_proj.{kind}"]
                meta[f"{new}mlp.{metas}.{kind}"] = timm[f"{new}mlp.{timms}.{kind}"] = tensor
        for j in "12":
            scale = theirs[f"{old}layer_scale{j}.lambda1"]
            meta[f"{new}ls{j}.gamma"] = timm[f"{new}gamma_{j}"] = scale
    for tensors in (meta, timm):
        for a, b in zip(
            jax.tree.leaves(variables), jax.tree.leaves(backbones.convert(backbone, tensors, backbone.layers)), strict=True
        ):
            assert np.array_equal(a, b)


def test_sizes_of_the_published_networks():
    """As counted by Hugging Face's modules, less the mask token; DINOv3's keys have biases here, which are 0."""
    for name, count in {
        "dino_vits8": 21670272,
        "dino_vitb16": 85798656,
        "dinov2_vitg14": 1136480768 - 1536,
        "dinov3_vits16": 21596544 - 384 + 12 * 384,
        "dinov3_vits16plus": 28692864 - 384 + 12 * 384,
        "clip_vitl14_336": 304293888,
        "clip_vitb16": 86192640,
    }.items():
        backbone = backbones.backbone(name)
        shapes = jax.eval_shape(lambda key, b=backbone: b.init(key, b.layers), jax.random.key(0))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count, name


def test_windows_are_images_of_their_patches_alone(monkeypatch):
    """A window's embedding is the class token's, where the transformer sees that window and nothing else."""
    card = Card("open_clip")
    backbone, variables = load(monkeypatch, card, "open_clip")
    windows2, windows3 = backbone.features(variables, card["image"], ("windows2", "windows3"))
    assert windows2.shape == (2, 4, 4, 16) and windows3.shape == (2, 3, 3, 16)
    # the same patches as an image of 3 x 3 patches, with their positions
    table = variables["params"]["pos_embed"][0]
    rows = [0, *(1 + 5 * row + column for row in (1, 2, 3) for column in (2, 3, 4))]
    small = {**variables["params"], "pos_embed": table[jnp.asarray(rows)][None]}
    monkeypatch.setitem(SPECS, "small", CASES["open_clip"]._replace(grid=3))
    part = card["image"][:, 4:16, 8:20]
    harness.close(windows3[:, 1, 2], vit("small").features({"params": small}, part, ("embedding",))[0])


def test_names_of_meta_for_dinov2_giant_and_of_timm_for_clip(monkeypatch):
    for name, renamed in (
        (
            "dinov2_swiglu",
            (
                (r"encoder\.layer\.", "blocks."),
                (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
                (r"embeddings\.position_embeddings", "pos_embed"),
                (r"embeddings\.", ""),
                (r"attention\.o_proj", "attn.proj"),
                (r"layer_scale(\d)\.lambda1", r"ls\1.gamma"),
                (r"^layernorm", "norm"),
                (r"down_proj", "w3"),
            ),
        ),
        (
            "open_clip",
            (
                (r"^visual\.transformer\.resblocks\.", "blocks."),
                (r"^visual\.ln_pre", "norm_pre"),
                (r"^visual\.ln_post", "norm"),
                (r"^visual\.conv1", "patch_embed.proj"),
                (r"^visual\.class_embedding", "cls_token"),
                (r"^visual\.positional_embedding", "pos_embed"),
                (r"^visual\.proj", "head.weight"),
                (r"ln_(\d)", r"norm\1"),
                (r"in_proj_", "qkv."),
                (r"out_proj", "proj"),
                (r"c_fc", "fc1"),
                (r"c_proj", "fc2"),
            ),
        ),
    ):
        card = Card(name)
        backbone, variables = load(monkeypatch, card, name)
        tensors = {}
        for key, tensor in card.tensors.items():
            if name == "open_clip" and not key.startswith("visual."):
                continue
            for pattern, new in renamed:
                key = re.sub(pattern, new, key)
            tensors[key] = {"cls_token": tensor.reshape(1, 1, -1), "head.weight": tensor.T}.get(key, tensor)
            if key == "pos_embed":
                tensors[key] = tensor.reshape(1, *tensor.shape[-2:])
        for i in range(3) if name == "dinov2_swiglu" else ():
            for kind in ("weight", "bias"):
                for parts, whole in (
                    (("attention.q_proj", "attention.k_proj", "attention.v_proj"), "attn.qkv"),
                    (("mlp.gate_proj", "mlp.up_proj"), "mlp.w12"),
                ):
                    found = [tensors.pop(f"blocks.{i}.{part}.{kind}") for part in parts]
                    tensors[f"blocks.{i}.{whole}.{kind}"] = np.concatenate(found)
        found = backbones.convert(backbone, tensors, backbone.layers)
        assert all(map(np.array_equal, jax.tree.leaves(variables), jax.tree.leaves(found)))
