"""The weights that come with iadjax are those of their card."""

import hashlib
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import iadjax
from iadjax import backbones
from iadjax.errors import UserError

FILE = Path(iadjax.__file__).parent / "backbones/packaged/pdn_small.safetensors"


def test_packaged_weights_are_those_of_the_card_and_the_default():
    card = FILE.with_suffix(".md").read_text(encoding="utf-8")
    data = FILE.read_bytes()
    assert hashlib.sha256(data).hexdigest() == re.search(r"SHA-256 \| (\w+)", card)[1]
    assert len(data) <= 6_000_000
    tensors = load_file(FILE)
    backbone = backbones.backbone("pdn_small")
    variables = backbones.load_weights(backbone, "", backbone.layers, None)
    leaves = jax.tree.leaves(variables)
    assert sum(leaf.size for leaf in leaves) == int(re.search(r"([\d,]+) numbers in", card)[1].replace(",", ""))
    # stored in half the bytes, computed in float32
    assert all(leaf.dtype == jnp.float32 for leaf in leaves)
    kernel = np.asarray(tensors["conv1.weight"], np.float32).transpose(2, 3, 1, 0)
    assert np.array_equal(kernel, variables["params"]["conv1"]["kernel"])


def test_features_of_a_teacher_that_knows_something():
    backbone = backbones.backbone("pdn_small")
    variables = backbones.load_weights(backbone, "", backbone.layers, None)
    # two textures: positions of one are nearer to each other than to those of the other
    rng = np.random.default_rng(0)
    fine, coarse = rng.random((64, 64)), rng.random((8, 8)).repeat(8, 0).repeat(8, 1)
    images = np.stack([fine, coarse])[..., None].repeat(3, -1).astype(np.float32)
    found = np.asarray(jax.jit(lambda x: backbone.features(variables, x, ("features",)))(images)[0], np.float64)
    a, b = (each.reshape(-1, found.shape[-1]) for each in found)
    within = np.mean([np.linalg.norm(each[:-1] - each[1:], axis=-1).mean() for each in (a, b)])
    assert np.linalg.norm(a.mean(0) - b.mean(0)) > 0.5 * within


def test_the_larger_network_needs_a_file():
    backbone = backbones.backbone("pdn_medium")
    with pytest.raises(UserError, match="pdn_medium needs weights: give a safetensors file"):
        backbones.load_weights(backbone, "", backbone.layers, None)
