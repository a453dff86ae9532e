"""CaiT against the formulas in NumPy float64, and its published sizes and names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from scipy.special import erf, softmax

from iadjax import backbones
from iadjax.backbones.backbone import IMAGENET_MEAN, IMAGENET_STD
from iadjax.backbones.cait import SPECS, Spec, cait
from iadjax.errors import UserError
from tests import torch_parity as parity

SMALL = Spec(12, 3, 2, 2, "")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(SPECS, "small", SMALL)
    return cait("small")


def random_tensors(backbone, layers):
    rng = np.random.default_rng(0)
    shapes = flatten_dict(jax.eval_shape(lambda: backbone.init(jax.random.key(0), layers)))
    tensors = {}
    for path, leaf in shapes.items():
        shape = {2: leaf.shape[::-1], 4: leaf.shape[::-1]}.get(leaf.ndim, leaf.shape)
        tensors[backbone.weight_name(path)] = (rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
    return tensors


def norm(x, t, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * t[f"{name}.weight"] + t[f"{name}.bias"]


def linear(x, t, name):
    return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def forward(tensors, image):
    """Tokens after the patches and each block, `[B, N, C]`."""
    t = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}
    x = (image.astype(np.float64) - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    batch, side, heads = len(x), image.shape[1] // 16, SMALL.heads
    patches = x.reshape(batch, side, 16, side, 16, 3).transpose(0, 1, 3, 5, 2, 4).reshape(batch, side**2, -1)
    x = patches @ t["patch_embed.proj.weight"].reshape(SMALL.dim, -1).T + t["patch_embed.proj.bias"] + t["pos_embed"]
    outputs = []
    for i in range(SMALL.depth):
        b = f"blocks.{i}"
        q, k, v = np.split(linear(norm(x, t, f"{b}.norm1"), t, f"{b}.attn.qkv"), 3, axis=-1)
        q, k, v = (each.reshape(batch, -1, heads, SMALL.dim // heads) for each in (q, k, v))
        logits = np.einsum("bqhd,bkhd->bqkh", q, k) / np.sqrt(SMALL.dim // heads)
        weights = softmax(linear(logits, t, f"{b}.attn.proj_l"), axis=2)
        mixed = np.einsum("bqkh,bkhd->bqhd", linear(weights, t, f"{b}.attn.proj_w"), v).reshape(x.shape)
        x = x + t[f"{b}.gamma_1"] * linear(mixed, t, f"{b}.attn.proj")
        y = linear(norm(x, t, f"{b}.norm2"), t, f"{b}.mlp.fc1")
        x = x + t[f"{b}.gamma_2"] * linear(0.5 * y * (1 + erf(y / np.sqrt(2))), t, f"{b}.mlp.fc2")
        outputs.append(x)
    return outputs, t


def test_tokens_equal_the_formulas(small):
    layers = ("block1", "block2.norm", "norm")
    tensors = random_tensors(small, layers)
    image = np.random.default_rng(1).random((2, 32, 32, 3)).astype(np.float32)
    outputs, t = forward(tensors, image)
    named = {f"module.{name}": tensor for name, tensor in tensors.items()}
    named |= {"module.cls_token": np.zeros((1, 1, 12)), "module.blocks_token_only.0.gamma_1": np.zeros(12)}
    variables = backbones.convert(small, named, layers)
    expected = (outputs[0], norm(outputs[1], t, "norm"), norm(outputs[2], t, "norm"))
    for ours, theirs in zip(parity.features(small, variables, image, layers), expected, strict=True):
        parity.assert_close(ours, theirs.reshape(ours.shape), 1e-4)


def test_published_sizes_and_one_size_of_images():
    backbone = backbones.backbone("cait_m48")
    # FastFlow's layer: block 40 of the paper, counted from 0, behind the last norm
    shapes = jax.eval_shape(lambda: backbone.init(jax.random.key(0), ("block41.norm",)))
    image = jax.ShapeDtypeStruct((1, 448, 448, 3), jnp.float32)
    found = jax.eval_shape(lambda v, x: backbone.features(v, x, ("block41.norm",)), shapes, image)
    assert found[0].shape == (1, 28, 28, 768) and "blocks_40" in shapes["params"] and "blocks_41" not in shapes["params"]
    whole = jax.eval_shape(lambda: backbone.init(jax.random.key(0), ("norm",)))
    # 356.46 million as published, with the class token, its two blocks and the head
    block = 12 * 768**2 + 13 * 768 + 2 * 768
    token_only = 2 * block + 768 + 769 * 1000
    assert sum(leaf.size for leaf in jax.tree.leaves(whole)) == pytest.approx(356.46e6 - token_only, abs=0.01e6)
    with pytest.raises(UserError, match="448x448, got 224x224; set data.resize=448"):
        backbone.features(shapes, jnp.zeros((1, 224, 224, 3)), ("block41.norm",))
